"""Reads remote files of the corpus in ranges. What was read is kept, so that nothing is requested twice."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.core.errors import SampleError, describe
from pipeline.core.seekable import Seekable
from pipeline.storage.range_requests import Answer, Changed, request_first, request_range
from pipeline.storage.retry import Truncated, ignore_wait, of_storage, precondition_failed, retried

_HEAD_BYTES = 1 << 20
"""Bytes of the first request: all of most texts, pictures and sounds."""
_LEAST_BYTES, _MOST_BYTES = 256 << 10, 16 << 20
"""Least and most bytes of a later request. Each request that continues the last one asks for twice as much."""
_KEEP_BYTES = 32 << 20
"""Bytes that are kept, besides the first request's."""


class source_errors:
    """Context manager that converts errors of a file system to a ``SampleError`` (``missing``, ``io``) with the URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SampleError("missing", f"no such file: {self.uri}") from error
        if error is not None and (isinstance(error, Changed) or precondition_failed(error)):
            raise SampleError("io", f"{self.uri}: the file changed while it was read") from error
        if error is not None and not isinstance(error, SampleError) and of_storage(error):
            raise SampleError("io", f"{self.uri}: {describe(error)}") from error


class ReadCost(NamedTuple):
    """What reading files took.

    Args:
        bytes: bytes that were read.
        requests: requests of ranges; 0 for local files. Some storages need one more, for the size.
        retries: requests that were repeated.
    """

    bytes: int = 0
    requests: int = 0
    retries: int = 0

    def as_meters(self) -> dict[str, int]:
        """Returns the values by the names of their meters (`pipeline.core.schema.METERS`)."""
        return {"bytes_read": self.bytes, "requests": self.requests, "retries": self.retries}

    def plus(self, other: ReadCost) -> ReadCost:
        """Returns what both took."""
        return ReadCost(*map(operator.add, self, other))

    def since(self, earlier: ReadCost) -> ReadCost:
        """Returns what was added after ``earlier``."""
        return ReadCost(*map(operator.sub, self, earlier))


class RemoteBytes:
    """The bytes of a remote file, for all that read it one after the other.

    A request that fails or is incomplete is repeated from where it ended. On S3 the first answer also states the size,
    and reading fails if the file is replaced meanwhile; elsewhere that is not noticed.

    Args:
        fs: the file system.
        path: the path on it.
        on_wait: called before each wait (`pipeline.storage.retry.retried`).
    """

    def __init__(self, fs: Any, path: str, on_wait: Callable[[], None] = ignore_wait) -> None:
        self._fs, self._path, self._on_wait = fs, path, on_wait
        self._size: int | None = None
        self._version: str | None = None
        self._head = b""
        self._pieces: list[tuple[int, bytes]] = []
        """Start and bytes of each later request, the least recently used first."""
        self._next = 0
        """Where the last request ended."""
        self._ahead = _LEAST_BYTES
        self.cost = ReadCost()

    def size(self) -> int:
        """Returns the size of the file in bytes. Raises what the file system raises."""
        if self._size is None:
            first = retried(lambda: self._counted(request_first, _HEAD_BYTES), self._note_retry)
            self._size, self._version, self._head = first.size, first.version, first.data
            self._next = len(first.data)
        return self._size

    def read(self, start: int, stop: int | None = None) -> bytes:
        """Returns the bytes from ``start`` to ``stop``, or to the end. Raises what the file system raises."""
        stop = self.size() if stop is None else min(stop, self.size())
        pieces: list[bytes] = []
        while start < stop:
            piece_start, data = self._held(start) or self._request(start, stop)
            pieces.append(data[start - piece_start : stop - piece_start])
            start += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _held(self, start: int) -> tuple[int, bytes] | None:
        """Returns a piece with the byte at ``start``, if there is one."""
        if start < len(self._head):
            return 0, self._head
        for at, (piece_start, data) in enumerate(self._pieces):
            if piece_start <= start < piece_start + len(data):
                self._pieces.append(self._pieces.pop(at))
                return piece_start, data
        return None

    def _request(self, start: int, stop: int) -> tuple[int, bytes]:
        """Requests the bytes from ``start`` on, at least some of those before ``stop``, and keeps them."""
        self._ahead = min(2 * self._ahead, _MOST_BYTES) if start == self._next else _LEAST_BYTES
        stop = min(max(stop, start + self._ahead), start + _MOST_BYTES, self.size())
        got: list[bytes] = []
        count = 0

        def rest() -> None:
            nonlocal count
            answer = self._counted(request_range, start + count, stop, self.size(), self._version)
            if answer.is_whole:  # the storage supports no ranges: it would send all of it each time
                self._head = answer.data
                answer = answer._replace(data=answer.data[start + count : stop])
            got.append(answer.data)
            count += len(answer.data)
            if start + count < stop:
                raise Truncated(count, stop - start)

        retried(rest, self._note_retry)
        self._next = stop
        piece = start, b"".join(got)
        self._pieces.append(piece)
        while len(self._pieces) > 1 and sum(len(data) for _, data in self._pieces) > _KEEP_BYTES:
            del self._pieces[0]
        return piece

    def _counted(self, request: Callable[..., Answer], *arguments: Any) -> Answer:
        """Makes a request and counts it, with the library's own repetitions if it counts them."""
        self._count(requests=1)
        answer = request(self._fs, self._path, *arguments)
        self._count(len(answer.data), answer.repeats, answer.repeats)
        return answer

    def _note_retry(self) -> None:
        self._count(retries=1)
        self._on_wait()

    def _count(self, bytes: int = 0, requests: int = 0, retries: int = 0) -> None:
        self.cost = self.cost.plus(ReadCost(bytes, requests, retries))


class RangedFile(Seekable):
    """A remote file as a seekable binary file.

    Reading raises ``SampleError`` (``io``, ``missing``) after the last attempt: a decoder must not mistake a broken
    connection for the end of the file.

    Args:
        uri: names the file in errors.
        source: its bytes.
    """

    def __init__(self, uri: str, source: RemoteBytes) -> None:
        with source_errors(uri):
            super().__init__(source.size())
        self.uri, self.source = uri, source
        self.name = "media"

    def read(self, size: int | None = -1) -> bytes:
        wanted = self.wanted(size)
        if wanted == 0:
            return b""
        with source_errors(self.uri):
            data = self.source.read(self.at, self.at + wanted)
        self.at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
