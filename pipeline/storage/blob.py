"""One file of the corpus, read whole or by ranges."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import SampleError
from pipeline.storage.ranges import RangedFile, source_errors, whole
from pipeline.storage.retry import retried
from pipeline.storage.roots import AllowedRoots
from pipeline.storage.urls import split

_READ = 1 << 30
"""Bytes that one call reads."""
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")


@dataclass(frozen=True)
class Blob:
    """One file of the corpus. ``uri`` is a local path or an fsspec URL; ``allowed`` says where it must lie.

    Transient errors of a remote file are retried (`pipeline.storage.retry`); local files are read as they are. A local
    file is checked by its descriptor before a byte of it is read, so that no link and no swap of names leads elsewhere.
    """

    uri: str
    allowed: AllowedRoots | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # what is open stays in its process

    @property
    def local(self) -> bool:
        """Whether it lies on this machine."""
        return isinstance(self._place[0], LocalFileSystem)

    def size(self) -> int:
        """Bytes of the file, asked for once. Raises ``SampleError`` (forbidden, missing, unsupported, io)."""
        return self._size

    @cached_property
    def _size(self) -> int:
        if self.local:
            return os.fstat(self._descriptor.fd).st_size
        fs, path = self._remote()
        with source_errors(self.uri):
            return retried(lambda: int(fs.size(path) or 0))

    def read(self, limit: int | None = None) -> bytes:
        """All bytes (or the first ``limit``). Raises ``SampleError`` (forbidden, missing, unsupported, io)."""
        if self.local:
            with source_errors(self.uri):
                return _read(self._descriptor.fd, self.size() if limit is None else limit)
        fs, path = self._remote()

        def read() -> bytes:
            with fs.open(path, "rb") as file:
                return whole(file, limit)

        with source_errors(self.uri):
            return retried(read)

    def open(self) -> BinaryIO:
        """A seekable binary file, read by ranges where it is remote. Its ``name`` is no path: ``media`` and the
        extension, which decoders take for a hint.

        Raises:
            SampleError: ``forbidden``, ``missing``, ``unsupported`` (a pipe, a device), ``io``; where it is remote,
                reading raises them too.
        """
        if self.local:
            with source_errors(self.uri):  # a position of its own
                raw = io.FileIO(os.open(f"/proc/self/fd/{self._descriptor.fd}", os.O_RDONLY | os.O_CLOEXEC))
            raw.name = self._hint()
            return io.BufferedReader(raw)
        fs, path = self._remote()
        with source_errors(self.uri):
            file = RangedFile(self.uri, retried(lambda: fs.open(path, "rb")))
        file.name = self._hint()
        return cast(BinaryIO, file)

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """Its file system and the path on it."""
        return split(self.uri)

    def _remote(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The same of a remote file, once it is allowed."""
        if self.allowed is not None:
            self.allowed.check(self.uri)
        return self._place

    @cached_property
    def _descriptor(self) -> _Descriptor:
        """The file of this machine, open and checked. It stays the same file for as long as this object is there."""
        path = self._place[1]
        if "\0" in path:
            raise SampleError("missing", f"no file can have the name {self.uri!r}")
        if self.allowed is not None:
            self.allowed.check(path)
        with source_errors(self.uri):
            # names the file and can do nothing else: opening it has no effect on pipes and devices
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
        extension = _EXTENSION.search(self.uri)
        return f"media{extension[0] if extension else ''}"


class _Descriptor:
    """An open file, closed with the last reference to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _read(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of an open file, or all that it has."""
    data = os.pread(fd, min(size, _READ), 0)
    if len(data) == size or not data:
        return data
    pieces, at = [data], len(data)
    while at < size and (data := os.pread(fd, min(size - at, _READ), at)):
        pieces.append(data)
        at += len(data)
    return b"".join(pieces)
