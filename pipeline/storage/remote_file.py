"""A file on an object store of which only the requested ranges are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.core.seekable import Seekable
from pipeline.storage.retry import retried

_GAP_BYTES = 64 << 10
"""Maximum gap between two ranges that are requested together: reading it costs less than another request."""


class RemoteFile(Seekable):
    """A binary file without buffer and read-ahead: each read is one request, unless `fetch` has read the bytes before.

    Object stores have no open files. If the file was moved, ``find`` is called again.

    Args:
        find: returns the file system and the path on it. Raises ``FileNotFoundError``.
    """

    size: int

    def __init__(self, find: Callable[[], tuple[Any, str]]) -> None:
        self._find = find
        self._fs, self._path = find()
        self._fetched: list[tuple[int, int, bytes]] = []
        """(start, end, bytes) of each range."""
        super().__init__(int(self._request(lambda: self._fs.size(self._path))))

    def read(self, size: int | None = -1) -> Any:
        wanted = self.wanted(size)
        start, end = self.at, self.at + wanted
        if not wanted:
            return b""
        held = (memoryview(data)[start - a : end - a] for a, b, data in self._fetched if a <= start and end <= b)
        data: Any = next(held, None)
        if data is None:
            data = self._request(lambda: self._fs.cat_file(self._path, start=start, end=end))
        self.at += len(data)
        return data

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Reads ranges ``[start, end)`` of bytes and keeps them until the next call.

        Ranges that are close to each other are requested together; requests are concurrent if the file system supports
        it.
        """
        self._fetched = []
        joined: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if joined and start - joined[-1][1] <= _GAP_BYTES:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        if joined:
            starts, ends = [start for start, _ in joined], [end for _, end in joined]
            pieces = self._request(
                lambda: self._fs.cat_ranges([self._path] * len(joined), starts, ends, on_error="raise")
            )
            self._fetched = [(*place, piece) for place, piece in zip(joined, pieces, strict=True)]

    def close(self) -> None:
        self._fetched = []
        super().close()

    def _request(self, call: Callable[[], Any]) -> Any:
        """Returns the result of ``call``, which is repeated at the new path if the file was moved."""
        try:
            return retried(call)
        except FileNotFoundError:
            self._fs, self._path = self._find()
            return retried(call)
