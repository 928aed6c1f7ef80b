"""An epoch of several datasets, each with its share of the rows.

The datasets have equally many streams. Chunk ``j`` of the mixture is from stream ``j % streams`` of one of them; a
fixed pattern says of which. So each process reads the same streams as with one dataset. A stream that ends begins its
next epoch, with another permutation, while the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.dataset.loading.order.epoch import Order, Rows
from pipeline.dataset.loading.order.permutation import random_bits

PATTERN = 4096
"""Chunks of a stream after which the pattern begins again. Shares are multiples of its inverse."""
_PATTERN_KEY = 1 << 32
"""Distinguishes the patterns from the permutations of `epoch`."""
_KEPT_ORDERS = 2
"""Orders of a dataset that are kept: its streams may be in two epochs."""


def quotas(weights: Sequence[float]) -> np.ndarray:
    """Returns the number of chunks of each dataset in a pattern, in the ratio of ``weights``, by largest remainders."""
    shares = np.array(weights, np.float64) / sum(weights) * PATTERN
    found = np.floor(shares).astype(np.int64)
    largest = np.argsort(-(shares - found), kind="stable")
    found[largest[: PATTERN - int(found.sum())]] += 1
    return found


def _pattern(quotas: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Returns the dataset of each chunk of a pattern [PATTERN] (int32).

    If a dataset has ``n`` chunks, there is one at a random place in each ``n``-th part of the pattern. So shares are
    nearly exact over short times, too.
    """
    jitter = (random_bits(PATTERN, seed, stream, _PATTERN_KEY) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    number = np.concatenate([np.arange(quota) for quota in quotas])
    order = np.argsort((number + jitter) / np.repeat(quotas, quotas), kind="stable")
    return np.repeat(np.arange(len(quotas), dtype=np.int32), quotas)[order]


class MixedOrder:
    """The endless sequence of the rows of a mixture.

    Args:
        sizes: for each dataset, the number of rows of each group.
        weights: for each dataset.
        seed: decides the permutations and the pattern.
        shuffle: whether each dataset is shuffled.
        streams: number of streams of each dataset, at most its number of rows.
        chunk_rows: number of rows in a chunk.
    """

    def __init__(
        self,
        sizes: Sequence[np.ndarray],
        weights: Sequence[float],
        seed: int,
        shuffle: bool,
        streams: int,
        chunk_rows: int,
    ) -> None:
        self.sizes, self.seed, self.shuffle = sizes, seed, shuffle
        self.streams, self.chunk_rows = streams, chunk_rows
        self._quotas = quotas(weights)
        self._patterns = np.stack([_pattern(self._quotas, seed, stream) for stream in range(streams)])
        """[streams, PATTERN]: the dataset of each chunk."""
        self._orders: dict[tuple[int, int], Order] = {}

    def read(self, start: int, end: int) -> Iterator[Rows]:
        """Yields the rows ``[start, end)`` of the sequence."""
        while start < end:
            chunk, skipped = divmod(start, self.chunk_rows)
            count = min(self.chunk_rows - skipped, end - start)
            number, stream = divmod(chunk, self.streams)
            source = int(self._patterns[stream, number % PATTERN])
            yield from self._rows(
                source, stream, self._chunks(source, stream, number) * self.chunk_rows + skipped, count
            )
            start += count

    def permuted(self, rows: Rows) -> np.ndarray:
        """Returns the order of the rows in the group of ``rows``."""
        return self._order(rows.source, rows.epoch).permuted(rows.group)

    def drawn(self, end: int) -> list[int]:
        """Returns how many of the first ``end`` rows each dataset has."""
        chunks, rest = divmod(end, self.chunk_rows)
        found = []
        for source in range(len(self.sizes)):
            counts = (
                self._chunks(source, v, (chunks - v + self.streams - 1) // self.streams) for v in range(self.streams)
            )
            found.append(sum(counts) * self.chunk_rows)
        number, stream = divmod(chunks, self.streams)
        found[int(self._patterns[stream, number % PATTERN])] += rest
        return found

    def _chunks(self, source: int, stream: int, number: int) -> int:
        """Returns the number of chunks of a dataset among the first ``number`` chunks of a stream."""
        patterns, i = divmod(number, PATTERN)
        return patterns * int(self._quotas[source]) + int(np.count_nonzero(self._patterns[stream, :i] == source))

    def _rows(self, source: int, stream: int, offset: int, count: int) -> Iterator[Rows]:
        """Yields rows of a stream whose epochs follow each other."""
        while count:
            length = self._order(source, 0).length(stream)
            epoch, skipped = divmod(offset, length)
            taken = min(count, length - skipped)
            yield from self._order(source, epoch).read(stream, skipped, taken)
            offset, count = offset + taken, count - taken

    def _order(self, source: int, epoch: int) -> Order:
        if (source, epoch) not in self._orders:
            made = sorted(one for number, one in self._orders if number == source and one)
            for old in made[: 1 - _KEPT_ORDERS]:
                del self._orders[source, old]
            self._orders[source, epoch] = Order(
                self.sizes[source], self.seed, epoch, self.shuffle, self.streams, source
            )
        return self._orders[source, epoch]


class MixedEpoch:
    """One epoch of a mixture: so many rows of its endless sequence.

    Args:
        order: the sequence.
        number: counts from 0.
        rows: rows of each epoch.
    """

    def __init__(self, order: MixedOrder, number: int, rows: int) -> None:
        self.order, self.rows = order, rows
        self._start = number * rows

    def permuted(self, rows: Rows) -> np.ndarray:
        """Returns the order of the rows in the group of ``rows``."""
        return self.order.permuted(rows)

    def read(self, start: int, end: int) -> Iterator[Rows]:
        """Yields the rows ``[start, end)`` of the epoch."""
        return self.order.read(self._start + start, self._start + end)
