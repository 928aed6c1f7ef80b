"""A file on an object store, read by just the bytes that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.storage.retry import retried
from pipeline.storage.seekable import Seekable

_GAP_BYTES = 64 << 10
"""A gap of so many bytes between two ranges costs less to read than a request."""


class RemoteFile(Seekable):
    """A binary file without a buffer and without read-ahead: each read is one request, unless `fetch` has its bytes.

    Object stores have no open files. One that was moved meanwhile is looked for again.

    Args:
        find: returns the file system and the path on it. Raises ``FileNotFoundError``.
    """

    size: int

    def __init__(self, find: Callable[[], tuple[Any, str]]) -> None:
        self._find = find
        self._fs, self._path = find()
        self._fetched: list[tuple[int, int, bytes]] = []
        """(start, end, bytes)."""
        super().__init__(int(self._ask(lambda: self._fs.size(self._path))))

    def read(self, size: int | None = -1) -> Any:
        wanted = self.wanted(size)
        start, end = self.at, self.at + wanted
        if not wanted:
            return b""
        held = (memoryview(data)[start - a : end - a] for a, b, data in self._fetched if a <= start and end <= b)
        data: Any = next(held, None)
        if data is None:
            data = self._ask(lambda: self._fs.cat_file(self._path, start=start, end=end))
        self.at += len(data)
        return data

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Reads ranges ``[start, end)`` of bytes, in as few requests as is worth it, concurrently where the file system
        can. The next call drops them."""
        self._fetched = []
        joined: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if joined and start - joined[-1][1] <= _GAP_BYTES:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        if joined:
            starts, ends = [start for start, _ in joined], [end for _, end in joined]
            pieces = self._ask(lambda: self._fs.cat_ranges([self._path] * len(joined), starts, ends, on_error="raise"))
            self._fetched = [(*place, piece) for place, piece in zip(joined, pieces, strict=True)]

    def close(self) -> None:
        self._fetched = []
        super().close()

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """What the object store answers; where the file was moved, at its new place."""
        try:
            return retried(ask)
        except FileNotFoundError:
            self._fs, self._path = self._find()
            return retried(ask)
