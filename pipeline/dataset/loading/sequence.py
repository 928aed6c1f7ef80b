"""The sequence of rows that a reader yields, and everything that decides it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import GroupReader
from pipeline.dataset.loading.index import Index
from pipeline.dataset.loading.labels import join_labels, label_columns
from pipeline.dataset.loading.order.deal import Deal, Tail
from pipeline.dataset.loading.order.epoch import Epoch, Order, Rows, default_chunk_rows, default_streams
from pipeline.dataset.loading.order.mixture import PATTERN, MixedEpoch, MixedOrder, quotas

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from pipeline.dataset.reader import Dataset


MAX_STREAMS = 1 << 16


class EpochRows(Protocol):
    """The rows of an epoch as one sequence."""

    rows: int

    def read(self, start: int, end: int) -> Iterator[Rows]:
        """Yields the rows ``[start, end)``."""

    def permuted(self, rows: Rows) -> np.ndarray:
        """Returns the order of the rows in the group of ``rows``."""


@dataclass(frozen=True)
class Source:
    """A dataset of which rows are read. Picklable.

    Args:
        data: one snapshot.
        columns: the columns to read.
        filter: an expression over its columns; None: all rows.
        weight: in a mixture.
        skip_unreadable: whether shards that cannot be read are left out.
        labels: columns to add, with ``sample_id``, and ``window`` if it has one; None: no columns. Rows that are not in
            it are not read.
    """

    data: Dataset
    columns: tuple[str, ...]
    filter: ds.Expression | None = None
    weight: float = 1.0
    skip_unreadable: bool = False
    labels: pa.Table | None = None

    @cached_property
    def index(self) -> Index:
        """The row groups, which are read once."""
        index = self.data.index(self.columns, self.filter, self.skip_unreadable)
        return index if self.labels is None else join_labels(self.data, index, self.labels)

    @property
    def version(self) -> str:
        """The version of the dataset. Snapshots are counted in each version."""
        return self.data.root.rstrip("/").rsplit("/", 1)[-1]

    def reader(self) -> GroupReader:
        """Returns what decodes the row groups."""
        schema = pa.schema([self.data.schema.field(name) for name in self.columns])
        labels = None if self.labels is None else label_columns(self.labels)
        return GroupReader(self.data.root, self.data.shards, self.index, schema, labels)


@dataclass(frozen=True)
class Sequence:
    """The rows of all epochs. Picklable.

    Args:
        sources: one dataset, or those of a mixture.
        batch_size: rows of a batch.
        seed: decides the permutations.
        shuffle: without it, the stored order.
        tail: what happens to the last rows of an epoch.
        streams: row groups that are read in turn; None: `default_streams`.
        chunk_rows: rows that are read from each in turn; None: `default_chunk_rows`.
        epoch_rows: rows of an epoch of a mixture; None: one dataset.
        max_open_bytes: limits the default number of streams.
    """

    sources: tuple[Source, ...]
    batch_size: int
    seed: int
    shuffle: bool
    tail: Tail
    streams: int | None
    chunk_rows: int | None
    epoch_rows: int | None
    max_open_bytes: int

    def epoch(self, number: int) -> EpochRows:
        """Returns the rows of an epoch."""
        streams, chunk_rows = self.shape
        if self.epoch_rows is not None:
            return MixedEpoch(self._mixed, number, self.epoch_rows)
        return Epoch(Order(self.sources[0].index.sizes, self.seed, number, self.shuffle, streams), chunk_rows)

    def deal(self, start: int, world_size: int) -> Deal:
        """Returns how the batches of an epoch are dealt from position ``start`` on."""
        return Deal(self.rows, self.batch_size, start, world_size, self.tail)

    @property
    def rows(self) -> int:
        """Number of rows in an epoch."""
        return self.sources[0].index.rows if self.epoch_rows is None else self.epoch_rows

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Number of streams, and of rows in a chunk."""
        indexes = [source.index for source in self.sources]
        least = min(index.rows for index in indexes)
        if self.epoch_rows is not None and not least:
            raise ConfigError("datasets", "one has no rows to read", "leave it out, or keep more rows")
        streams = self.streams
        if streams is None:
            largest = sum(int(index.bytes.max(initial=0)) for index in indexes)
            decoding = max(int(index.decoding_bytes.max(initial=0)) for index in indexes)
            streams = default_streams(largest, decoding, self.max_open_bytes, self.shuffle)
            if self.epoch_rows is not None and least < streams:
                warnings.warn(
                    f"the datasets are read in {least} streams instead of {streams}, since one has {least} rows: the "
                    "others are mixed less",
                    stacklevel=2,
                )
            streams = max(1, min(least, streams))
        if streams > MAX_STREAMS:
            raise ConfigError("streams", f"{streams}", f"at most {MAX_STREAMS}")
        if self.epoch_rows is not None and streams > least:
            raise ConfigError("streams", f"{streams}, but a dataset has {least} rows", f"at most {least}")
        return streams, self.chunk_rows or default_chunk_rows(least, streams, self.batch_size)

    def decoding_processes(self, processes: int) -> int:
        """Returns how many of so many processes read each stream. Each of them decodes all of its row groups."""
        streams, chunk_rows = self.shape
        if self.batch_size % chunk_rows:
            return processes  # a batch begins anywhere in a chunk, so each process reads all streams sooner or later
        stride = processes * self.batch_size // chunk_rows
        return min(processes, stride // math.gcd(stride, streams))

    def settings(self) -> dict[str, Any]:
        """Returns all that decides which rows each batch has, except seed and epoch: for a state, and to compare."""
        streams, chunk_rows = self.shape
        return {
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "tail": self.tail,
            "streams": streams,
            "chunk_rows": chunk_rows,
            "epoch_rows": self.epoch_rows,
            "sources": [
                {
                    "version": source.version,
                    "snapshot": source.data.snapshot,
                    "filter": None if source.filter is None else str(source.filter),
                    "weight": source.weight,
                    "index": source.index.digest,
                }
                for source in self.sources
            ],
        }

    def drawn(self, epoch: int, batches: int) -> list[dict[str, int]]:
        """Returns for each dataset of a mixture the epoch that most of its streams are in, and its rows so far."""
        assert self.epoch_rows is not None
        rows = self._mixed.drawn(epoch * self.epoch_rows + min(batches * self.batch_size, self.epoch_rows))
        sizes = [source.index.rows for source in self.sources]
        return [{"epoch": done // size, "rows_read": done} for done, size in zip(rows, sizes, strict=True)]

    @cached_property
    def _mixed(self) -> MixedOrder:
        weights = [source.weight for source in self.sources]
        if not quotas(weights).all():
            raise ConfigError("weights", f"{weights}", f"each at least 1/{PATTERN} of their sum")
        sizes = [source.index.sizes for source in self.sources]
        return MixedOrder(sizes, weights, self.seed, self.shuffle, *self.shape)
