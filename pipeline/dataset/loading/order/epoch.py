"""The order in which an epoch reads the rows of a dataset. It depends on nothing but its arguments.

Terms: *group*, a row group of a shard, or its rows that a filter keeps. *Place*, the number of a row in the
concatenation of the groups in the order of the epoch. *Stream*, one of several equal ranges of places. *Chunk*, some
rows of one stream. Chunk ``j`` of the epoch is from stream ``j % streams``, so that consecutive chunks are of different
groups, while no more groups than streams are read at any time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from pipeline.dataset.loading.order.permutation import permutation

STREAMS = 64
"""Default number of streams of a shuffled epoch."""
DECODED_AHEAD = 2
"""Groups for which the default number of streams leaves room while they are decoded ahead: as many as a process decodes
at the same time if the dataset is local. It is a constant, because the number of streams decides the order of rows,
which must not depend on the machine or on where the dataset is. If more threads decode (on an object store), they wait
where memory is short."""
CHUNK_ROWS = 32
"""Largest default number of rows in a chunk."""
_LEAST_CHUNKS = 8
"""The default number of rows in a chunk leaves each stream at least so many chunks, unless it has fewer rows."""
_GROUPS, _ROWS = 0, 1
"""What is permuted: the groups of an epoch, or the rows of a group. Plus twice the number of the dataset."""


class Rows(NamedTuple):
    """Rows of one group, in the order in which an epoch reads them."""

    stream: int
    """The stream in whose chunk they are."""
    epoch: int
    group: int
    start: int
    """Number of the first row in the permutation of the group's rows."""
    size: int
    is_reversed: bool
    """Whether the numbers fall from ``start`` instead of rising."""
    source: int
    """Number of the dataset in a mixture."""

    def of(self, permuted: np.ndarray) -> np.ndarray:
        """Returns these rows of the permuted rows of the group."""
        if not self.is_reversed:
            return permuted[self.start : self.start + self.size]
        return permuted[self.start - self.size + 1 : self.start + 1][::-1]


def default_streams(group_bytes: int, decoding_bytes: int, most_bytes: int, shuffle: bool) -> int:
    """Returns the number of streams: one without a shuffle, otherwise up to `STREAMS`.

    Args:
        group_bytes: bytes of the largest group in memory.
        decoding_bytes: bytes of the largest group while it is decoded.
        most_bytes: bytes that the groups of all streams, as one process may read them all, and `DECODED_AHEAD` that are
            decoded may take.
        shuffle: whether the epochs are shuffled.
    """
    if not shuffle:
        return 1
    streams = STREAMS
    while streams > 1 and streams * group_bytes + DECODED_AHEAD * decoding_bytes > most_bytes:
        streams //= 2
    return streams


def default_chunk_rows(rows: int, streams: int, batch_size: int) -> int:
    """Returns the number of rows in a chunk: a power of two up to `CHUNK_ROWS` that divides ``batch_size``.

    For few rows it is smaller.
    """
    found = CHUNK_ROWS
    while found > 1 and (batch_size % found or rows < streams * found * _LEAST_CHUNKS):
        found //= 2
    return found


class Order:
    """The order of the rows in one epoch.

    The groups are permuted and their rows numbered through; stream ``v`` has the places from ``rows * v // streams`` to
    ``rows * (v + 1) // streams``. Odd streams are read backwards, so that both parts of a group that two streams share
    are read at about the same time. The two are half of all streams apart, so that often the same process reads them.

    Args:
        sizes: the number of rows of each group.
        seed: with ``epoch``, decides the permutations.
        epoch: counts from 0.
        shuffle: without it, groups and rows keep the stored order.
        streams: number of streams.
        source: number of the dataset in a mixture.
    """

    def __init__(self, sizes: np.ndarray, seed: int, epoch: int, shuffle: bool, streams: int, source: int = 0) -> None:
        self.seed, self.epoch, self.shuffle, self.streams, self.source = seed, epoch, shuffle, streams, source
        self.rows = int(sizes.sum())
        self._sizes = sizes
        groups = permutation(len(sizes), seed, epoch, _GROUPS + 2 * source) if shuffle else np.arange(len(sizes))
        self._groups: list[int] = groups.tolist()
        self._starts: list[int] = [0, *accumulate(sizes[groups].tolist())]
        """The place of the first row of each group, in the order of the epoch; then the number of rows."""
        edges = [self.rows * v // streams for v in range(streams + 1)]
        self._backwards = (streams + 1) // 2
        """The first of the streams that are read backwards."""
        numbers = [*range(0, streams, 2), *range(1, streams, 2)]
        self._ranges: list[tuple[int, int]] = [(edges[number], edges[number + 1]) for number in numbers]
        """The places of each stream."""

    def length(self, stream: int) -> int:
        """Returns the number of rows in a stream."""
        start, end = self._ranges[stream]
        return end - start

    def permuted(self, group: int) -> np.ndarray:
        """Returns the order of the rows of a group."""
        size = int(self._sizes[group])
        if not self.shuffle:
            return np.arange(size)
        return permutation(size, self.seed, self.epoch, _ROWS + 2 * self.source, group)

    def read(self, stream: int, offset: int, count: int) -> Iterator[Rows]:
        """Yields rows ``[offset, offset + count)`` of a stream, group by group."""
        start, end = self._ranges[stream]
        backwards = stream >= self._backwards
        while count:
            place = end - 1 - offset if backwards else start + offset
            i = bisect_right(self._starts, place) - 1
            first = self._starts[i]
            left = place - first + 1 if backwards else self._starts[i + 1] - place
            taken = min(count, left)
            yield Rows(stream, self.epoch, self._groups[i], place - first, taken, backwards, self.source)
            offset, count = offset + taken, count - taken


class Epoch:
    """The rows of an epoch as one sequence: chunks of the streams in turn, then the rest of each stream.

    Args:
        order: the streams.
        chunk_rows: number of rows in a chunk.
    """

    def __init__(self, order: Order, chunk_rows: int) -> None:
        self.order, self.chunk_rows, self.rows = order, chunk_rows, order.rows
        self._rounds = order.rows // order.streams // chunk_rows
        """Chunks of each stream."""

    def permuted(self, rows: Rows) -> np.ndarray:
        """Returns the order of the rows in the group of ``rows``."""
        return self.order.permuted(rows.group)

    def read(self, start: int, end: int) -> Iterator[Rows]:
        """Yields the rows ``[start, end)`` of the epoch, in its order."""
        streams, chunk = self.order.streams, self.chunk_rows
        in_chunks = self._rounds * streams * chunk
        while start < min(end, in_chunks):
            number, skipped = divmod(start, chunk)
            count = min(chunk - skipped, end - start)
            yield from self.order.read(number % streams, number // streams * chunk + skipped, count)
            start += count
        while start < end:
            stream = bisect_right(self._rests, start) - 1
            skipped = start - self._rests[stream]
            count = min(self._rests[stream + 1], end) - start
            yield from self.order.read(stream, self._rounds * chunk + skipped, count)
            start += count

    @cached_property
    def _rests(self) -> list[int]:
        """The number of the first row of the rest of each stream, then the number of rows."""
        done = self._rounds * self.chunk_rows
        lengths = (self.order.length(stream) - done for stream in range(self.order.streams))
        return list(accumulate(lengths, initial=done * self.order.streams))
