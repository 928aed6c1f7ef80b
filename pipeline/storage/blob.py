"""One file of the corpus, read whole or by ranges."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import SampleError
from pipeline.storage.ranges import RangedFile, ReadCost, RemoteBytes, source_errors
from pipeline.storage.retry import ignore_wait
from pipeline.storage.roots import AllowedRoots
from pipeline.storage.urls import split

_READ_BYTES = 1 << 30
"""Maximum bytes that one system call reads."""
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")


@dataclass(frozen=True)
class Blob:
    """One file of the corpus.

    Transient errors of a remote file are retried (`pipeline.storage.retry`). A local file is checked by its open
    descriptor before it is read, so that neither a link nor a renamed file can lead elsewhere.

    Args:
        uri: a local path or an fsspec URL.
        allowed: where the file must lie; None: anywhere.
        on_wait: called before each wait (`pipeline.storage.retry.retried`).
    """

    uri: str
    allowed: AllowedRoots | None = None
    on_wait: Callable[[], None] = ignore_wait

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # the open file cannot be pickled

    @property
    def local(self) -> bool:
        """Whether the file is on this machine."""
        return isinstance(self._fs_and_path[0], LocalFileSystem)

    def size(self) -> int:
        """Returns the size of the file in bytes. Looked up once; a remote file's first bytes are read with it.

        Raises:
            SampleError: ``forbidden``, ``missing``, ``unsupported``, ``io``.
        """
        if self.local:
            return self._local_size
        with source_errors(self.uri):
            return self._remote().size()

    @cached_property
    def _local_size(self) -> int:
        return os.fstat(self._descriptor.fd).st_size

    def read(self, limit: int | None = None) -> bytes:
        """Returns all bytes, or the first ``limit``.

        Raises:
            SampleError: ``forbidden``, ``missing``, ``unsupported``, ``io``.
        """
        if self.local:
            with source_errors(self.uri):
                return _read(self._descriptor.fd, self.size() if limit is None else limit)
        with source_errors(self.uri):
            return self._remote().read(0, limit)

    def open(self) -> BinaryIO:
        """Opens the file as a seekable binary file; a remote file is read in ranges.

        Its ``name`` is not a path but ``media`` with the extension, which decoders use as a hint of the format.

        Raises:
            SampleError: ``forbidden``, ``missing``, ``unsupported`` (a pipe, a device), ``io``. Reads of a remote file
                raise it too.
        """
        if self.local:
            with source_errors(self.uri):  # opened again: a duplicated descriptor would share its position
                raw = io.FileIO(os.open(f"/proc/self/fd/{self._descriptor.fd}", os.O_RDONLY | os.O_CLOEXEC))
            raw.name = self._hint()
            return io.BufferedReader(raw)
        file = RangedFile(self.uri, self._remote())
        file.name = self._hint()
        return cast(BinaryIO, file)

    def cost(self) -> ReadCost:
        """Returns what reading a remote file took so far; zeros for a local one."""
        remote: RemoteBytes | None = self.__dict__.get("_bytes")  # a URI without a file system has none
        return ReadCost() if remote is None else remote.cost

    def share(self, other: Blob) -> None:
        """Reads from now on what ``other``, which is of the same file, has requested."""
        if not self.local:
            self.__dict__["_bytes"] = other._bytes

    @cached_property
    def _fs_and_path(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system, and the path on it."""
        return split(self.uri)

    @cached_property
    def _bytes(self) -> RemoteBytes:
        """The bytes of a remote file."""
        return RemoteBytes(*self._fs_and_path, self.on_wait)

    def _remote(self) -> RemoteBytes:
        """Returns the bytes of a remote file, if it is allowed. Raises ``SampleError`` otherwise."""
        if self.allowed is not None:
            self.allowed.check(self.uri)
        return self._bytes

    @cached_property
    def _descriptor(self) -> _Descriptor:
        """The local file, opened and checked once. It stays open as long as this object exists."""
        path = self._fs_and_path[1]
        if "\0" in path:
            raise SampleError("missing", f"no file can have the name {self.uri!r}")
        if self.allowed is not None:
            self.allowed.check(path)
        with source_errors(self.uri):
            # O_PATH only identifies the file: opening a pipe or a device this way has no effect
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                if self.allowed is not None:
                    self.allowed.check_real(os.readlink(f"/proc/self/fd/{handle}"), self.uri)
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise SampleError("unsupported", f"not a regular file: {self.uri}")
                return _Descriptor(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC))
            finally:
                os.close(handle)

    def _hint(self) -> str:
        """Returns a file name with the extension of the URI."""
        extension = _EXTENSION.search(self.uri)
        return f"media{extension[0] if extension else ''}"


class _Descriptor:
    """A file descriptor that is closed with the last reference to this object."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _read(fd: int, size: int) -> bytes:
    """Returns the first ``size`` bytes of an open file, or all if it has fewer."""
    data = os.pread(fd, min(size, _READ_BYTES), 0)
    if len(data) == size or not data:
        return data
    pieces, at = [data], len(data)
    while at < size and (data := os.pread(fd, min(size - at, _READ_BYTES), at)):
        pieces.append(data)
        at += len(data)
    return b"".join(pieces)
