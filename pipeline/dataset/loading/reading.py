"""Reads batches whose rows are planned: decodes row groups ahead in threads, and holds them within a limit of bytes."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader, gather_rows
from pipeline.dataset.loading.order.epoch import Rows

_PLANNED_BATCHES = 64
"""Batches that are planned ahead, to find the groups to decode next."""
Key = tuple[int, int]
"""Number of the dataset and of the group in its index."""
Part = tuple[DecodedGroup, np.ndarray]


@dataclass
class ReadCounts:
    """What a process has read. All numbers are of rows, unless they say otherwise."""

    decoded_groups: int = 0
    """Row groups, each as often as it was decoded."""
    lost: int = 0
    """Rows that could not be read and were skipped."""
    repeated: int = 0
    """Rows that replace those of batches of which no row could be read."""


@dataclass
class _Open:
    group: DecodedGroup
    orders: dict[int, np.ndarray] = field(default_factory=dict)
    """Epoch -> the order of the group's rows in it."""


class BatchReading:
    """Reads planned batches, in order.

    A group stays open from its first batch until all streams that this process reads have gone on to other groups.

    Attributes:
        read: [planned rows] bool, for the batch that was yielded last: which rows it has; None: all, or others in
            their place.

    Args:
        readers: one for each dataset.
        plans: the rows of each batch.
        permuted: returns the order of the rows in the group of the given rows.
        most_bytes: bytes that open groups may take. With too few of them groups are decoded again, whenever a batch
            needs them.
        threads: groups that are decoded at the same time.
        skip_unreadable: whether rows of groups that cannot be read are left out and counted.
    """

    def __init__(
        self,
        readers: Sequence[GroupReader],
        plans: Iterator[list[Rows]],
        permuted: Callable[[Rows], np.ndarray],
        most_bytes: int,
        threads: int,
        skip_unreadable: bool,
    ) -> None:
        self.counts = ReadCounts()
        self.read: np.ndarray | None = None
        self._readers, self._plans, self._permuted = readers, plans, permuted
        self._most_bytes, self._threads, self._skip_unreadable = most_bytes, threads, skip_unreadable
        self._upcoming: deque[list[Rows]] = deque()
        self._uses: Counter[Key] = Counter()
        """Group -> how often the upcoming batches use it."""
        self._current: dict[tuple[int, int], Key] = {}
        """Stream -> its group in the last batch that was planned."""
        self._streams: Counter[Key] = Counter()
        """Group -> the number of streams of which it is the current one."""
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        """The least recently used first."""
        self._loading: dict[Key, Future[DecodedGroup]] = {}
        self._wanted: dict[Key, None] = {}
        """Groups that upcoming batches need, in their order, and that are not being decoded."""
        self._lost: set[Key] = set()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields each batch. Raises ``ConfigError`` for a group that cannot be read, or that takes too many bytes."""
        with ThreadPoolExecutor(self._threads, "read_ahead") as pool:
            try:
                while self._plan():
                    self._decode_ahead(pool)
                    rows = self._upcoming.popleft()
                    batch = self._batch(rows)
                    self._release(rows)
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for reader in self._readers:
                    reader.close()

    def _plan(self) -> bool:
        """Plans batches until enough groups are wanted. Returns whether there is a batch to read."""
        while len(self._upcoming) < _PLANNED_BATCHES and len(self._wanted) <= self._threads:
            rows = next(self._plans, None)
            if rows is None:
                break
            self._upcoming.append(rows)
            for one in rows:
                self._expect(one)
        return bool(self._upcoming)

    def _expect(self, rows: Rows) -> None:
        key, stream = (rows.source, rows.group), (rows.source, rows.stream)
        self._uses[key] += 1
        if self._uses[key] == 1 and key not in self._lost and not (key in self._open or key in self._loading):
            self._wanted[key] = None
        before = self._current.get(stream)
        if before != key:
            self._current[stream] = key
            self._streams[key] += 1
            if before is not None:
                self._streams[before] -= 1
                self._close_unused(before)

    def _release(self, batch: list[Rows]) -> None:
        for rows in batch:
            key = (rows.source, rows.group)
            self._uses[key] -= 1
            self._close_unused(key)

    def _close_unused(self, key: Key) -> None:
        if self._uses[key] == 0 and self._streams[key] == 0:
            self._open.pop(key, None)
            del self._uses[key], self._streams[key]

    def _decode_ahead(self, pool: ThreadPoolExecutor) -> None:
        """Starts to decode wanted groups, as far as threads and memory allow."""
        for key in list(self._wanted):
            if len(self._loading) >= self._threads or self._bytes() + self._estimate(key) > self._most_bytes:
                break
            del self._wanted[key]
            self._loading[key] = pool.submit(self._readers[key[0]].read, key[1])

    def _batch(self, batch: list[Rows]) -> pa.RecordBatch:
        parts: list[Part] = []
        is_read: list[bool] = []
        schema = self._readers[0].schema
        for rows in batch:
            key = (rows.source, rows.group)
            is_read.append(key not in self._lost)
            if key in self._lost:
                self._wanted.pop(key, None)
                self._loading.pop(key, None)
                continue
            if not self._has_room(key):
                parts = [(group.taken(schema, numbers), np.arange(len(numbers))) for group, numbers in parts]
                self._make_room(key)
            try:
                opened = self._opened(key)
            except ConfigError:
                if not self._skip_unreadable:
                    raise
                self._lost.add(key)
                is_read[-1] = False
                continue
            parts.append((opened.group, rows.of(self._order(opened, rows))))
        self.read = None if all(is_read) else np.repeat(is_read, [rows.size for rows in batch])
        if self.read is not None:
            self.counts.lost += int((~self.read).sum())
            self.read = self.read if parts else None
        return gather_rows(schema, parts or [self._replacement(batch)])

    def _order(self, opened: _Open, rows: Rows) -> np.ndarray:
        """Returns the order of a group's rows in the epoch of ``rows``."""
        if rows.epoch not in opened.orders:
            for epoch in sorted(opened.orders)[:-1]:  # streams of a mixture may be in two epochs
                del opened.orders[epoch]
            opened.orders[rows.epoch] = self._permuted(rows)
        return opened.orders[rows.epoch]

    def _opened(self, key: Key) -> _Open:
        """Returns a group; waits until it is decoded."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        self._wanted.pop(key, None)
        loading = self._loading.pop(key, None)
        group = loading.result() if loading else self._readers[key[0]].read(key[1])
        self.counts.decoded_groups += 1
        self._open[key] = _Open(group)
        return self._open[key]

    def _replacement(self, batch: list[Rows]) -> Part:
        """Returns other rows for a batch of which no row can be read, so that all ranks have as many batches."""
        group = self._readable(batch[0].source)
        count = group.rows if group.positions is None else len(group.positions)
        numbers = np.arange(sum(rows.size for rows in batch)) % count
        self.counts.repeated += len(numbers)
        return group, numbers

    def _readable(self, source: int) -> DecodedGroup:
        """Returns a group that is open, or else the first one that can be read."""
        if self._open:
            return next(reversed(self._open.values())).group
        error: ConfigError | None = None
        for number in range(len(self._readers[source].index)):
            if (source, number) not in self._lost:
                try:
                    return self._opened((source, number)).group
                except ConfigError as found:
                    self._lost.add((source, number))
                    error = found
        raise error or ConfigError("path", "no row can be read", "restore the shards, or open another snapshot")

    def _has_room(self, key: Key) -> bool:
        return key in self._open or key in self._loading or self._bytes() + self._estimate(key) <= self._most_bytes

    def _make_room(self, key: Key) -> None:
        """Closes the groups that were not used for the longest time. They are decoded again when they are needed."""
        needed = self._estimate(key)
        if needed > self._most_bytes:
            raise ConfigError(
                "max_open_bytes", f"{self._most_bytes}, but a row group takes {needed} bytes", f"at least {needed}"
            )
        while self._bytes() + needed > self._most_bytes:
            if self._open:
                self._open.popitem(last=False)
            else:
                loading, future = self._loading.popitem()
                if future.exception() is None:  # otherwise it is raised again when a batch needs the group
                    self._open[loading] = _Open(future.result())

    def _bytes(self) -> int:
        """Returns the bytes of the open groups, and of those that are being decoded."""
        loading = sum(self._estimate(key) for key in self._loading)
        return loading + sum(opened.group.bytes for opened in self._open.values())

    def _estimate(self, key: Key) -> int:
        return int(self._readers[key[0]].index.bytes[key[1]])
