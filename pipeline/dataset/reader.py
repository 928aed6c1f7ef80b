"""Reads a dataset as Arrow tables, torch tensors or a Ray dataset. Ray is imported only by `to_ray` and `ray_collate`,
torch only when tensors are made.

    data = dataset.open("OUT")
    data.to_arrow(["sample_id", "photo_embedding"], pc.field("photo_embedding").is_valid())
    data.to_torch(["photo_tokens", "caption_embedding"], batch_size=64, shuffle=True).loader(num_workers=4)

The files are plain Parquet. This reader adds snapshots, which stay exact while others write, lineage, and tensors.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.core.schema import FAILURES, column
from pipeline.dataset._checks import check_filter, check_stored_width, column_names
from pipeline.dataset._footer import NewestFooter
from pipeline.dataset._ray_rows import ray_collate, ray_rows
from pipeline.dataset.collate import Collate, Column
from pipeline.dataset.commit import pins, snapshots
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.feature_info import FeatureInfo, feature_columns
from pipeline.dataset.loading.batches import MAX_OPEN_BYTES, BatchOptions, read_batches
from pipeline.dataset.loading.index import Index, build_index
from pipeline.dataset.loading.map_reader import MapReader
from pipeline.dataset.loading.rows import torch_rows
from pipeline.dataset.loading.sequence import Source
from pipeline.dataset.shards.filters import filtered, is_same_filter, needed
from pipeline.dataset.shards.reader import (
    BATCH_ROWS,
    ShardErrors,
    check_columns,
    live_rows,
    live_slice,
    open_shard,
    read_shard,
)

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    import ray.data
    from torch.utils.data import IterableDataset

_FAILURE_BATCH_ROWS = 1 << 14
_MAX_UNCHECKED_WIDTH = 1 << 14
"""If the footer gives an embedding of more values, a stored vector is read to confirm it."""


class Dataset:
    """One snapshot of one version of a dataset. Picklable.

    It opens files only to read them, and finds those that later runs have moved.
    """

    def __init__(self, root: str, snapshot: Snapshot) -> None:
        self.root = root
        self.snapshot = snapshot.number
        self.created = datetime.datetime.fromisoformat(snapshot.created)
        self.run_id = snapshot.run_id
        self.shards = list(snapshot.shards)
        self.failure_shards = list(snapshot.failures)
        self._indexes: list[tuple[tuple[str, ...], bool, ds.Expression | None, Index]] = []

    def __repr__(self) -> str:
        return f"Dataset({self.root!r}, snapshot={self.snapshot}, rows={self.num_rows}, features={list(self.features)})"

    @property
    def num_rows(self) -> int:
        return sum(shard.live for shard in self.shards)

    @property
    def num_failures(self) -> int:
        return sum(shard.live for shard in self.failure_shards)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns in their stored types, without metadata. Only the fixed ones if there are no rows.

        Raises ``ConfigError`` if a fixed column is missing, or a column has a type that no writer produces.
        """
        return self._footer.schema

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """The metadata of the newest file: contract, run, window, features, versions of the libraries."""
        lineage: dict[str, Any] = self._footer.lineage.plain()
        return lineage

    @property
    def features(self) -> dict[str, FeatureInfo]:
        """The features by name. Raises ``ConfigError`` for values that no writer produces."""
        return self._footer.features

    @cached_property
    def _footer(self) -> NewestFooter:
        return NewestFooter(self.root, self.shards, self.failure_shards)

    @property
    def spaces(self) -> dict[str, list[str]]:
        """Vector space -> the names of the features whose embeddings are in it."""
        found: dict[str, list[str]] = {}
        for name, feature in self.features.items():
            found.setdefault(feature.space, []).append(name)
        return found

    def to_arrow(self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
        """Reads all rows, or those that ``filter`` keeps, into one table.

        Args:
            columns: None: all.
            filter: an expression over any columns, also those that are not in ``columns``.

        Raises:
            ConfigError: an unknown column, a filter that does not match the schema, or a missing shard.
        """
        names = column_names(self.schema, columns)
        check_filter(self.schema, names, filter)
        tables = [self.schema.empty_table().select(names)]
        columns = needed(self.schema, names, filter)
        tables += [read_shard(self.root, shard, self.schema, names, filter, columns) for shard in self.shards]
        return pa.concat_tables(tables)

    def batches(
        self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, batch_size: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of `to_arrow` in order, in batches of 1 to ``batch_size`` rows. Raises the same errors."""
        names = column_names(self.schema, columns)
        check_filter(self.schema, names, filter)
        return self._batches(names, filter, batch_size)

    def failures(self) -> pa.Table:
        """Reads all failures: one row for each (row, feature) that failed, with stage, kind and message."""
        names = FAILURES.names
        tables = [read_shard(self.root, shard, FAILURES, names, None, names) for shard in self.failure_shards]
        return pa.concat_tables([FAILURES.empty_table(), *tables])

    def failure_batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows of `failures` in batches of some thousand rows."""
        for shard in self.failure_shards:
            yield from live_rows(self.root, shard, FAILURES.names, _FAILURE_BATCH_ROWS, FAILURES)

    def _batches(self, names: list[str], filter: ds.Expression | None, batch_size: int) -> Iterator[pa.RecordBatch]:
        columns = needed(self.schema, names, filter)
        for shard in self.shards:
            batches = live_rows(self.root, shard, columns, batch_size, self.schema)
            yield from filtered(batches, filter, names, batch_size)

    def at(self, snapshot: int) -> Dataset:
        """Returns the same version at another snapshot. Raises ``ConfigError`` if that one is gone."""
        number = pins.resolve(self.root, snapshot, snapshots.numbers(self.root))
        return Dataset(self.root, snapshots.read(self.root, number))

    def index(
        self, columns: Sequence[str], filter: ds.Expression | None = None, skip_unreadable: bool = False
    ) -> Index:
        """Returns the row groups, and which of their rows ``filter`` keeps. Reads footers the first time.

        Args:
            columns: those that will be read.
            filter: None: all rows.
            skip_unreadable: whether shards that cannot be read are left out, and their rows counted.
        """
        for names, skips, kept, index in self._indexes:  # the text of an expression leaves out values
            if (names, skips) == (tuple(columns), skip_unreadable) and is_same_filter(kept, filter):
                return index
        check_filter(self.schema, list(columns), filter)
        index = build_index(self.root, self.shards, self.schema, list(columns), filter, skip_unreadable)
        self._indexes.append((tuple(columns), skip_unreadable, filter, index))
        return index

    def to_torch(
        self,
        columns: Sequence[str] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        batch_size: int | None = None,
        **options: Unpack[BatchOptions],
    ) -> IterableDataset[Any]:
        """Returns a `torch.utils.data.IterableDataset` of rows, or of batches if ``batch_size`` is given.

        For batches see `TorchReader` and `BatchOptions`. Their order is the same for any number of ranks and workers.

        Rows are dicts. For a feature ``f``, ``f_embedding`` [D], ``f_tokens`` [N, d], ``f_token_ids`` [N], ``f_grid``
        [3] and ``f_times`` [T] are tensors of the stored dtype. Strings and numbers are Python values; null is None.
        Tensors are views of the batch that was read: clone those that you keep. Every row is returned exactly once over
        all ranks and their DataLoader workers. Each worker reads one contiguous range of the rows, in order, and opens
        only the shards of its range. Ranges differ by at most one row; nothing is padded or dropped. A loop that needs
        the same number of steps on every rank must stop after ``num_rows // world_size`` rows.

        Args:
            columns: None: all.
            rank: of this process; None: that of `torch.distributed`, or of the environment.
            world_size: number of ranks; None: as for ``rank``.
            batch_size: None: single rows.
            options: of batches.

        Raises:
            ConfigError: an unknown column, an option of wrong value, or ranks that contradict each other.
        """
        names = column_names(self.schema, columns)
        if batch_size is None:
            if options:
                raise ConfigError(next(iter(options)), "given without batch_size", "give batch_size, too")
            rows: IterableDataset[Any] = torch_rows(self, names, rank, world_size)
            return rows
        return read_batches([(self, 1.0, options.pop("filter", None))], names, rank, world_size, batch_size, options)

    def to_map(
        self,
        columns: Sequence[str] | None = None,
        filter: ds.Expression | None = None,
        max_open_bytes: int = MAX_OPEN_BYTES,
    ) -> MapReader:
        """Returns the rows by position and by (sample_id, window). ``max_open_bytes``: of decoded row groups."""
        return MapReader(Source(self, tuple(column_names(self.schema, columns)), filter), self.collate, max_open_bytes)

    @cached_property
    def collate(self) -> Collate:
        """The collate function for rows of `to_torch`, and for batches of Arrow or numpy columns. Accepts nulls."""
        parts = {name: (part, f.dim) for f in self.features.values() for name, part in feature_columns(f)}
        for f in self.features.values():
            name, width = column(f.name, "embedding"), f.dim or 0
            if width > _MAX_UNCHECKED_WIDTH and name in self.schema.names:
                check_stored_width(self.root, name, width, self.batches([name]))
        return Collate({field.name: Column.of(field, *parts.get(field.name, (None, None))) for field in self.schema})

    def rows_between(self, start: int, end: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yields rows ``[start, end)``, at most ``rows`` in a batch. Reads only the row groups that contain them."""
        rows_before = 0
        for shard in self.shards:
            first, last = max(0, start - rows_before), min(shard.live, end - rows_before)
            rows_before += shard.live
            if first < last:
                with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
                    check_columns(self.root, shard, file.schema_arrow, columns)
                    yield from live_slice(file, shard, first, last, columns, rows, self.schema)

    def to_ray(self, columns: Sequence[str] | None = None) -> ray.data.Dataset:
        """Returns a Ray dataset of the rows. Its ``iter_torch_batches`` accepts nulls only with `ray_collate`."""
        return ray_rows(self, column_names(self.schema, columns))

    def ray_collate(self) -> Callable[[pa.Table], dict[str, Any]]:
        """Returns `collate` for Ray: ``iter_torch_batches(collate_fn=dataset.ray_collate())``."""
        return ray_collate(self.collate)
