"""The row groups of a snapshot, and which of their rows are read: the live ones, or those that a filter keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.loading.memory.decoded_bytes import DecodedBytes, group_bytes
from pipeline.dataset.loading.memory.footers import Footers
from pipeline.dataset.shards.filters import kept, needed
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard
from pipeline.parquet import ParquetFile

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_THREADS, _REMOTE_THREADS = 2, 16
"""Footers that are read at the same time: on an object store, each is a request. Of a local dataset, parsing takes most
of the time, and threads wait for one another."""
_FILTER_THREADS = 2
"""Row groups whose columns are read for a filter at the same time."""
_POSITION = "__position"


@dataclass(frozen=True)
class Index:
    """The row groups with at least one row to read, in stored order. Picklable.

    All arrays have one value for each group.
    """

    shards: np.ndarray
    """Number of the shard in the snapshot."""
    groups: np.ndarray
    """Number of the row group in the shard."""
    firsts: np.ndarray
    """Position of the group's first row in the shard."""
    stored: np.ndarray
    """Rows in the group, deleted ones included."""
    sizes: np.ndarray
    """Rows that are read."""
    decoded_bytes: np.ndarray
    """Bytes that the columns take in memory with all stored rows, as `DecodedBytes` estimates them."""
    bytes: np.ndarray
    """Bytes that the group takes in memory once it is decoded, with the order of its rows in an epoch."""
    decoding_bytes: np.ndarray
    """Bytes that it takes while it is decoded: more, if the rows that are read are copied then."""
    kept: tuple[np.ndarray, ...] | None
    """Positions in the group of the rows that are read (uint32), if there is a filter."""
    contents: str = ""
    """A digest of the contents of the shards."""
    lost_rows: int = 0
    """Live rows of shards that could not be read."""
    labels: tuple[np.ndarray, ...] | None = None
    """Row of a table of labels for each row that is read (int64), if there is one."""
    footers: Footers = field(default_factory=Footers, repr=False, compare=False)
    """Of the shards, as far as they are kept."""

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def rows(self) -> int:
        """Number of rows that are read."""
        return int(self.sizes.sum())

    @cached_property
    def digest(self) -> str:
        """A digest of which rows are read."""
        found = hashlib.sha256(self.contents.encode())
        for array in (self.shards, self.groups, self.firsts, self.sizes, *(self.kept or ())):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    def positions(self, number: int, deleted: np.ndarray) -> np.ndarray | None:
        """Returns the positions in group ``number`` of the rows that are read, ascending; None: all.

        Args:
            number: number of the group in this index.
            deleted: positions of the deleted rows in its shard, ascending.
        """
        if self.kept is not None:
            return self.kept[number]
        if self.sizes[number] == self.stored[number]:
            return None
        return _live(deleted, int(self.firsts[number]), int(self.stored[number]))


@dataclass(frozen=True)
class _Group:
    shard: int
    group: int
    first: int
    stored: int
    size: int
    bytes: int
    positions: np.ndarray | None


def build_index(
    root: str,
    shards: list[File],
    schema: pa.Schema,
    columns: list[str],
    filter: ds.Expression | None,
    skip_unreadable: bool,
) -> Index:
    """Reads the footers of ``shards``, and with a filter its columns.

    Args:
        root: the version's folder.
        shards: the files of a snapshot.
        schema: the schema of the rows.
        columns: the columns that will be read.
        filter: an expression over columns of ``schema``; None: all live rows are read.
        skip_unreadable: whether shards that cannot be read are left out, and their rows counted.

    Raises:
        ConfigError: a shard is missing or cannot be read.
    """
    names = needed(schema, [], filter)
    wanted, footers = pa.schema([schema.field(name) for name in columns]), Footers()

    def read(number: int) -> list[_Group] | None:
        try:
            return list(_read_shard(root, number, shards[number], wanted, names, filter, footers))
        except ConfigError:
            if not skip_unreadable:
                raise
            return None

    threads = _THREADS if storage.is_local(root) else _REMOTE_THREADS
    with ThreadPoolExecutor(threads if filter is None else _FILTER_THREADS) as pool:
        found = list(pool.map(read, range(len(shards))))
    groups = [group for one in found for group in one or [] if group.size]
    stored = np.array([group.stored for group in groups], np.int64)
    sizes = np.array([group.size for group in groups], np.int64)
    decoded = np.array([group.bytes for group in groups], np.int64)
    open_bytes, decoding_bytes = group_bytes(decoded, stored, sizes)
    return Index(
        shards=np.array([group.shard for group in groups], np.int64),
        groups=np.array([group.group for group in groups], np.int64),
        firsts=np.array([group.first for group in groups], np.int64),
        stored=stored,
        sizes=sizes,
        decoded_bytes=decoded,
        bytes=open_bytes,
        decoding_bytes=decoding_bytes,
        kept=None if filter is None else tuple(group.positions for group in groups if group.positions is not None),
        contents=hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest(),
        lost_rows=sum(shard.live for shard, one in zip(shards, found, strict=True) if one is None),
        footers=footers,
    )


def _read_shard(
    root: str,
    number: int,
    shard: File,
    wanted: pa.Schema,
    filter_columns: list[str],
    filter: ds.Expression | None,
    footers: Footers,
) -> Iterator[_Group]:
    """Yields the groups of one shard, and keeps its footer."""
    with ShardErrors(root, shard), open_shard(root, shard) as file:
        check_columns(root, shard, file.schema_arrow, [*wanted.names, *filter_columns])
        footers.keep(number, file.metadata)
        sizes = DecodedBytes(file.metadata.schema, file.schema_arrow, wanted)
        deleted = np.array(shard.deleted, np.int64)
        first = 0
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            rows = metadata.num_rows
            live = rows - len(_within(deleted, first, rows))
            positions = None
            if filter is not None:
                positions = _matches(file, group, filter_columns, _live(deleted, first, rows), filter)
                live = len(positions)
            yield _Group(number, group, first, rows, live, sizes.of(metadata), positions)
            first += rows


def _matches(file: ParquetFile, group: int, columns: list[str], live: np.ndarray, filter: ds.Expression) -> np.ndarray:
    """Returns the positions in a group of those ``live`` rows that ``filter`` keeps."""
    found = pa.table({_POSITION: live.astype(np.uint32)})
    for part in file.parts([group], columns):
        table = file.read_row_groups(part, columns=columns, use_threads=False).take(live)
        for name in columns:
            found = found.append_column(name, table[name])
    positions: np.ndarray = kept(found, filter, [_POSITION])[_POSITION].to_numpy()
    return positions


def _live(deleted: np.ndarray, first: int, rows: int) -> np.ndarray:
    """Returns the positions in a group of its rows that are not deleted, ascending.

    Args:
        deleted: positions of deleted rows in the shard, ascending.
        first: position of the group's first row in the shard.
        rows: rows in the group.
    """
    return np.delete(np.arange(rows), _within(deleted, first, rows) - first)


def _within(deleted: np.ndarray, first: int, rows: int) -> np.ndarray:
    """Returns the deleted rows of a group: their positions in the shard."""
    start, end = np.searchsorted(deleted, [first, first + rows])
    return deleted[start:end]
