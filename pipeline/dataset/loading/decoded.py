"""Decodes row groups of a snapshot, and gathers their rows into batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.dataset.commit.data_files import File
from pipeline.dataset.loading.gather import StoredColumn, gather
from pipeline.dataset.loading.index import Index
from pipeline.dataset.loading.memory.decoded_bytes import MOST_STORED
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard
from pipeline.parquet import ParquetFile

_OPEN_FILES = 32
"""Files that stay open."""


@dataclass(frozen=True)
class DecodedGroup:
    """Rows of a row group in memory."""

    columns: tuple[StoredColumn, ...]
    rows: int
    bytes: int
    positions: np.ndarray | None
    """The rows that are read; None: all."""

    @classmethod
    def of(cls, table: pa.Table, positions: np.ndarray | None) -> DecodedGroup:
        """Returns the rows of ``table`` at ``positions``; None: all.

        Raises ``pa.ArrowException`` for a column over 2 GiB of text.
        """
        arrays = [_one_array(column) for column in table.columns]
        columns = tuple(StoredColumn.of(array) for array in arrays)
        size = sum(column.bytes for column in columns) + (0 if positions is None else positions.nbytes)
        found = cls(columns, len(table), size, positions)
        if positions is not None and len(table) > MOST_STORED * len(positions):
            return found.taken(table.schema, np.arange(len(positions)))
        return found

    @property
    def count(self) -> int:
        """Number of rows that are read."""
        return self.rows if self.positions is None else len(self.positions)

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Returns where the given ones of the rows that are read are in the columns."""
        return rows if self.positions is None else self.positions[rows]

    def taken(self, schema: pa.Schema, rows: np.ndarray) -> DecodedGroup:
        """Returns a copy of the given ones of the rows that are read, which does not hold this group's memory."""
        return DecodedGroup.of(pa.Table.from_batches([gather_rows(schema, [(self, rows)])]), None)

    def with_columns(self, schema: pa.Schema, more: pa.Table) -> DecodedGroup:
        """Returns a copy of the rows that are read, with further columns of these rows."""
        count = self.rows if self.positions is None else len(self.positions)
        table = pa.Table.from_batches([gather_rows(schema, [(self, np.arange(count))])])
        for field, column in zip(more.schema, more.columns, strict=True):
            table = table.append_column(field, column)
        return DecodedGroup.of(table, None)


def gather_rows(schema: pa.Schema, parts: Sequence[tuple[DecodedGroup, np.ndarray]]) -> pa.RecordBatch:
    """Returns rows of several groups as one batch of ``schema``, in writable memory.

    Args:
        schema: the columns, as in the groups.
        parts: groups, and which of their rows that are read are taken.
    """
    numbered = [(group, group.numbers(rows)) for group, rows in parts]
    arrays = [
        gather(field.type, [(group.columns[i], rows) for group, rows in numbered]) for i, field in enumerate(schema)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class GroupReader:
    """Decodes row groups of one snapshot. Thread-safe; keeps some files open.

    Args:
        root: the version's folder.
        shards: the files of the snapshot.
        index: the groups.
        schema: the columns to read, and their types.
        labels: columns to add; ``index.labels`` has the rows of it.
    """

    def __init__(
        self, root: str, shards: Sequence[File], index: Index, schema: pa.Schema, labels: pa.Table | None = None
    ) -> None:
        self.root, self.shards, self.index = root, shards, index
        self.schema = schema if labels is None else pa.schema([*schema, *labels.schema])
        self._stored, self._labels = schema, labels
        self._deleted: dict[int, np.ndarray] = {}
        """Number of a shard -> the positions of its deleted rows."""
        self._tries: dict[str, int] = {}
        """See `ParquetFile.read_group`."""
        self._open_nothing()

    def _open_nothing(self) -> None:
        """Begins without open files."""
        self._idle: list[tuple[int, ParquetFile]] = []
        """Open files that no thread uses: (number of the shard, file), the least recently used first."""
        self._openings: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def read(self, number: int) -> DecodedGroup:
        """Decodes group ``number`` of the index. Raises ``ConfigError`` if it cannot be read."""
        if self._pid != os.getpid():  # after a fork, files would share their positions with those of the parent
            self._open_nothing()
        shard_number, group = int(self.index.shards[number]), int(self.index.groups[number])
        shard, columns = self.shards[shard_number], self._stored.names
        with ShardErrors(self.root, shard):
            file = self._open(shard_number)
            for _ in file.parts([group], columns):
                table = file.read_group(group, columns, self._tries)
            self._keep(shard_number, file)
            if len(table) != self.index.stored[number]:
                raise ValueError(f"row group {group + 1} has {len(table)} rows, its footer {self.index.stored[number]}")
            if table.schema.types != self._stored.types:
                table = table.cast(self._stored)
            decoded = DecodedGroup.of(table, self.index.positions(number, self._deleted_rows(shard_number)))
        if self._labels is None or self.index.labels is None:
            return decoded
        return decoded.with_columns(self._stored, self._labels.take(pa.array(self.index.labels[number])))

    def _deleted_rows(self, shard: int) -> np.ndarray:
        """Returns the positions of the deleted rows of a shard."""
        if shard not in self._deleted:
            self._deleted[shard] = np.array(self.shards[shard].deleted, np.int64)
        return self._deleted[shard]

    def close(self) -> None:
        """Closes the open files."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, file in idle:
            file.close()

    def _open(self, shard: int) -> ParquetFile:
        with self._lock:
            for i, (number, file) in enumerate(self._idle):
                if number == shard:
                    del self._idle[i]
                    return file
            first_opening = self._openings.setdefault(shard, threading.Lock())
        with first_opening:  # other threads wait for the footer
            footer = self.index.footers.get(shard)
            file = open_shard(self.root, self.shards[shard], footer)
            if footer is None:
                check_columns(self.root, self.shards[shard], file.schema_arrow, self._stored.names)
                self.index.footers.keep(shard, file.metadata)
        return file

    def _keep(self, shard: int, file: ParquetFile) -> None:
        with self._lock:
            self._idle.append((shard, file))
            excess = self._idle[:-_OPEN_FILES]
            del self._idle[:-_OPEN_FILES]
        for _, one in excess:
            one.close()


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
