"""Reads batches whose rows are planned: decodes row groups ahead in threads, and keeps them within a limit of bytes."""

from __future__ import annotations

import math
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader, gather_rows
from pipeline.dataset.loading.memory.open_groups import LIMIT, Key, OpenGroup, OpenGroups
from pipeline.dataset.loading.order.epoch import Rows

_PLANNED_BATCHES = 64
"""Batches that are planned ahead at most: to find the groups to decode next, and those that are needed last."""


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
class _Part:
    """Rows of one group in a batch."""

    key: Key
    group: DecodedGroup
    rows: np.ndarray


class BatchReading:
    """Reads planned batches, in order.

    A group stays open from its first batch until all streams that this process reads have gone on to other groups, or
    until another group needs its memory. Beside the open groups a process holds the batch that it makes, and what
    decoding needs for itself.

    Attributes:
        read: [planned rows] bool, for the batch that was yielded last: which rows it has; None: all, or others in
            their place.

    Args:
        readers: one for each dataset.
        plans: the rows of each batch.
        permuted: returns the order of the rows in the group of the given rows.
        most_bytes: bytes that open groups may take, with their orders and those that are being decoded. With too few
            of them groups are closed early, and decoded again when a batch needs them.
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
        self._has_warned = False
        """Whether a warning has said that groups are decoded more than once."""
        self._groups = OpenGroups(readers, most_bytes, threads, self._next_use, self._before_close)
        self._upcoming: deque[list[Rows]] = deque()
        self._planned_rows = 0
        """`Rows` that were planned so far."""
        self._uses: dict[Key, deque[int]] = {}
        """Group -> numbers of the planned `Rows` that it still has."""
        self._current: dict[tuple[int, int], Key] = {}
        """Stream -> its group in the last batch that was planned."""
        self._streams: Counter[Key] = Counter()
        """Group -> the number of streams of which it is the current one."""
        self._wanted: dict[Key, None] = {}
        """Groups that upcoming batches need, and that are neither open nor being decoded."""
        self._parts: list[_Part] = []
        """Of the batch that is made."""
        self._lost: set[Key] = set()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields each batch. Raises ``ConfigError`` for a group that cannot be read, or that takes too many bytes."""
        try:
            with ThreadPoolExecutor(self._threads, "read_ahead") as pool:
                try:
                    while self._plan():
                        rows = self._upcoming.popleft()
                        batch = self._batch(rows, pool)
                        for key in {(one.source, one.group) for one in rows}:
                            self._close_unused(key)
                        yield batch
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:  # no thread reads any more
            self._groups.end()
            self._parts.clear()
            for reader in self._readers:
                reader.close()

    def _plan(self) -> bool:
        """Plans batches until enough groups are wanted. Returns whether there is a batch to read."""
        while not self._upcoming or len(self._wanted) <= self._threads:
            if not self._plan_batch():
                break
        return bool(self._upcoming)

    def _plan_batch(self) -> bool:
        """Plans one batch more. Returns whether there was one."""
        rows = next(self._plans, None) if len(self._upcoming) < _PLANNED_BATCHES else None
        if rows is None:
            return False
        self._upcoming.append(rows)
        for one in rows:
            self._expect(one)
        return True

    def _expect(self, rows: Rows) -> None:
        key, stream = (rows.source, rows.group), (rows.source, rows.stream)
        self._uses.setdefault(key, deque()).append(self._planned_rows)
        self._planned_rows += 1
        if key not in self._lost and key not in self._groups:
            self._wanted[key] = None
        before = self._current.get(stream)
        if before != key:
            self._current[stream] = key
            self._streams[key] += 1
            if before is not None:
                self._streams[before] -= 1
                self._close_unused(before)

    def _close_unused(self, key: Key) -> None:
        if not self._uses.get(key) and not self._streams[key]:
            self._groups.close(key)
            self._uses.pop(key, None)
            del self._streams[key]

    def _next_use(self, key: Key) -> float:
        """Returns the number of the first planned `Rows` of a group; infinity: none of the planned batches has any."""
        while self._plan_batch():
            pass
        uses = self._uses.get(key)
        return uses[0] if uses else math.inf

    def _before_close(self, key: Key) -> None:
        """Copies the rows of the batch that are of a group, so that they do not hold its memory."""
        for part in self._parts:
            if part.key == key:
                part.group, part.rows = part.group.taken(self._readers[0].schema, part.rows), np.arange(len(part.rows))
        if self._uses.get(key):
            self._wanted[key] = None
            if not self._has_warned:
                warnings.warn(
                    f"row groups are decoded more than once, since those that are read in turn take more than {LIMIT}="
                    f"{self._most_bytes}; fewer streams or more bytes avoid it",
                    stacklevel=2,
                )
            self._has_warned = True

    def _decode_ahead(self, pool: ThreadPoolExecutor) -> None:
        """Starts to decode wanted groups, the one that is needed first, as far as threads and memory allow."""
        for key in sorted(self._wanted, key=lambda one: self._uses[one][0]):
            if not self._groups.decode_ahead(pool, key):
                break
            del self._wanted[key]

    def _batch(self, batch: list[Rows], pool: ThreadPoolExecutor) -> pa.RecordBatch:
        self._decode_ahead(pool)
        is_read = []
        for rows in batch:
            is_read.append(self._add_part(rows))
            if self._wanted and not self._groups.is_busy:
                self._decode_ahead(pool)
        self.read = None if all(is_read) else np.repeat(is_read, [rows.size for rows in batch])
        if self.read is not None:
            self.counts.lost += int((~self.read).sum())
            self.read = self.read if self._parts else None
        parts = [(part.group, part.rows) for part in self._parts] or [self._replacement(batch)]
        self._parts = []
        self.counts.decoded_groups = self._groups.decoded
        return gather_rows(self._readers[0].schema, parts)

    def _add_part(self, rows: Rows) -> bool:
        """Adds rows to the batch. Returns whether they could be read."""
        key = (rows.source, rows.group)
        self._uses[key].popleft()
        self._wanted.pop(key, None)
        if key in self._lost:
            return False
        try:
            opened = self._groups.open(key)
        except ConfigError as error:
            if error.where == LIMIT or not self._skip_unreadable:
                raise
            self._lost.add(key)
            return False
        self._parts.append(_Part(key, opened.group, rows.of(self._order(opened, rows))))
        if len(opened.orders) > 1:
            self._groups.resize(key)
        return True

    def _order(self, opened: OpenGroup, rows: Rows) -> np.ndarray:
        """Returns the order of a group's rows in the epoch of ``rows``."""
        if rows.epoch not in opened.orders:
            for epoch in sorted(opened.orders)[:-1]:  # streams of a mixture may be in two epochs
                del opened.orders[epoch]
            opened.orders[rows.epoch] = self._permuted(rows)
        return opened.orders[rows.epoch]

    def _replacement(self, batch: list[Rows]) -> tuple[DecodedGroup, np.ndarray]:
        """Returns other rows for a batch of which no row can be read, so that all ranks have as many batches."""
        group = self._groups.any_open() or self._readable(batch[0].source)
        numbers = np.arange(sum(rows.size for rows in batch)) % group.count
        self.counts.repeated += len(numbers)
        return group, numbers

    def _readable(self, source: int) -> DecodedGroup:
        """Returns the first group that can be read. It stays open until another one needs its memory."""
        error: ConfigError | None = None
        for number in range(len(self._readers[source].index)):
            if (source, number) not in self._lost:
                try:
                    return self._groups.open((source, number)).group
                except ConfigError as found:
                    if found.where == LIMIT:
                        raise
                    self._lost.add((source, number))
                    error = found
        raise error or ConfigError("path", "no row can be read", "restore the shards, or open another snapshot")
