"""Place: which rows of which epoch a batch has. Collate functions that draw random numbers derive them from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.order.deal import Range
from pipeline.dataset.loading.order.permutation import random_bits

if TYPE_CHECKING:
    from pipeline.dataset.loading.reading import BatchReading

_WEIGHTS_SEED = 0x7E55E7A
"""Decides the hashes. Another seed would change the masks of every sample."""
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Constants of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014)."""


class PlacedCollate(Protocol):
    """A collate function whose attribute ``wants_place`` is true: readers call it with the place, too."""

    wants_place: ClassVar[bool]

    def __call__(self, batch: pa.RecordBatch, place: Place) -> Any:
        """Makes a batch of the read columns."""


@dataclass(frozen=True, eq=False)
class Place:
    """Which rows of which epoch a batch has. Readers pass it to collate functions whose ``wants_place`` is true.

    Random numbers that depend on a seed, the epoch and the numbers of rows are the same for a row whichever rank and
    worker reads it, before and after a resume on other numbers of them, also in the last round, whose batches differ.
    The number of a batch would not do: the batches of the last round depend on the number of ranks.
    """

    epoch: int
    """Counts from 0."""
    rows: np.ndarray
    """[B] int64: the number of each row in the order of the epoch. With ``shuffle`` a row has another one in each."""

    @classmethod
    def of_ids(cls, epoch: int, *columns: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Place:
        """Returns a place whose numbers are hashes of ids: without a reader, or where the order shall not matter.

        A set that is evaluated again and again has the same masks each time with a fixed ``epoch``, and keeps them when
        rows are added to the dataset.

        Args:
            epoch: counts from 0.
            columns: together they identify a row: ``batch["sample_id"], batch["window"]``.
        """
        return cls(epoch, id_hashes(*columns))

    def take(self, kept: np.ndarray) -> Place:
        """Returns the place of a part of the rows: [B] bool, or their indices."""
        return Place(self.epoch, self.rows[kept])


def collated(reading: BatchReading, collate: Any, epoch: int, planned: deque[list[Range]]) -> Iterator[Any]:
    """Yields the batches of ``reading`` as ``collate`` makes them.

    Args:
        reading: the record batches.
        collate: a function of a record batch, or of a record batch and its place.
        epoch: of the batches.
        planned: the rows of each batch that ``reading`` has planned, in order. They are removed.
    """
    wants_place = getattr(collate, "wants_place", False)
    for batch in reading:
        ranges = planned.popleft()
        if not wants_place:
            yield collate(batch)
            continue
        numbers = np.concatenate([np.arange(first, end) for first, end in ranges])
        yield collate(batch, Place(epoch, numbers if reading.read is None else numbers[reading.read]))


def id_hashes(*columns: pa.Array | pa.ChunkedArray | Sequence[Any]) -> np.ndarray:
    """Returns a hash [rows] (int64) of the texts or integers of each row, the same in all processes.

    Two different texts have the same hash with a probability below ``2 ** -56``: it is a sum of the bytes, each times a
    random number of its position (Carter and Wegman, "Universal classes of hash functions", 1979).

    Raises ``ConfigError`` for nulls, and for values that are neither texts nor integers.
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        array = array if isinstance(array, pa.Array) else pa.array(array)
        if array.null_count:
            raise ConfigError("ids", f"{array.null_count} of {len(array)} are null", "ids that all rows have")
        found = _mixed(found ^ _hashes(array))
    return found.view(np.int64)


def _hashes(array: pa.Array) -> np.ndarray:
    if pa.types.is_integer(array.type):
        numbers: np.ndarray = array.to_numpy(zero_copy_only=False)
        return numbers.astype(np.uint64)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise ConfigError("ids", f"found {array.type}", "texts or integers")
    if not len(array):
        return np.zeros(0, np.uint64)
    texts = array.cast(pa.large_string())
    _, offset_bytes, data = texts.buffers()
    offsets = np.frombuffer(offset_bytes, np.int64, len(texts) + 1, texts.offset * 8)
    lengths = np.diff(offsets)
    content = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    weights = random_bits(int(lengths.max()) + 1, _WEIGHTS_SEED)
    position = np.arange(len(content)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(content * weights[position + 1], dtype=np.uint64)])
    ends = offsets - offsets[0]
    found: np.ndarray = sums[ends[1:]] - sums[ends[:-1]] + lengths.astype(np.uint64) * weights[0]
    return found


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Returns a permutation of all 64-bit numbers, in which each bit of a number changes half of the bits."""
    found = numbers + np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * _MIX[0]
    found = (found ^ (found >> np.uint64(27))) * _MIX[1]
    mixed: np.ndarray = found ^ (found >> np.uint64(31))
    return mixed
