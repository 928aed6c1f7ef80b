"""Reads remote files of the corpus: errors become ``SampleError``, and an incomplete read is repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.core.errors import SampleError, describe
from pipeline.storage.retry import Truncated, ignore_wait, of_storage, retried
from pipeline.storage.seekable import Seekable


class source_errors:
    """Context manager that converts errors of a file system to a ``SampleError`` (``missing``, ``io``) with the URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SampleError("missing", f"no such file: {self.uri}") from error
        if error is not None and not isinstance(error, SampleError) and of_storage(error):
            raise SampleError("io", f"{self.uri}: {describe(error)}") from error


def read_whole(file: Any, limit: int | None) -> bytes:
    """Returns all bytes of an open file, or the first ``limit``. Raises ``Truncated`` if the file has more bytes than
    are read."""
    data: bytes = file.read(-1 if limit is None else limit)
    size = _size(file)
    if size is not None:
        wanted = size if limit is None else min(limit, size)
        if len(data) < wanted:
            raise Truncated(len(data), wanted)
    return data


class RangedFile(Seekable):
    """A seekable file of fsspec, opened for reading. A read that fails or is incomplete is continued where it ended.

    Reading raises ``SampleError`` (``io``, ``missing``) after the last attempt: a decoder must not mistake a broken
    connection for the end of the file.

    Args:
        uri: names the file in errors.
        file: the file of fsspec.
        on_wait: called before each wait (`pipeline.storage.retry.retried`).
    """

    def __init__(self, uri: str, file: Any, on_wait: Callable[[], None] = ignore_wait) -> None:
        super().__init__(_size(file))
        self.uri, self.file, self.on_wait = uri, file, on_wait
        self.name = "media"

    def read(self, size: int | None = -1) -> bytes:
        wanted = self.wanted(size)
        if wanted == 0:
            return b""
        with source_errors(self.uri):
            data = self._read_range(wanted)
        self.at += len(data)
        return data

    def _read_range(self, wanted: int) -> bytes:
        """Returns ``wanted`` bytes from the current position; -1: all remaining bytes."""
        pieces: list[bytes] = []
        got = 0

        def read_rest() -> None:
            nonlocal got
            if self.file.tell() != self.at + got:
                self.file.seek(self.at + got)
            piece = self.file.read(wanted - got if wanted >= 0 else -1)
            pieces.append(piece)
            got += len(piece)
            if self.size is not None and got < wanted:
                raise Truncated(got, wanted)

        retried(read_rest, self.on_wait)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def _size(file: Any) -> int | None:
    """Returns the size of an fsspec file; None if it is unknown."""
    size = getattr(file, "size", None)
    return size if isinstance(size, int) else None
