"""Reads a dataset as Arrow tables, torch tensors or a Ray dataset. Ray is imported only by `to_ray` and `ray_collate`,
torch only when tensors are made.

    dataset = open("OUT")
    dataset.to_arrow(["sample_id", "photo_embedding"], pc.field("photo_embedding").is_valid())
    DataLoader(dataset.to_torch(["photo_tokens", "caption_embedding"]), batch_size=64, collate_fn=dataset.collate)

The files are plain Parquet. This reader adds snapshots, which stay exact while others write, lineage, and tensors.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FAILURES, column
from pipeline.dataset._checks import check_stored_width, column_names
from pipeline.dataset._footer import NewestFooter
from pipeline.dataset._ray_rows import ray_collate, ray_rows
from pipeline.dataset.collate import Collate, Column
from pipeline.dataset.commit import catalog, pins, snapshots
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.feature_info import FeatureInfo, feature_columns
from pipeline.dataset.shards.filters import filtered, needed
from pipeline.dataset.shards.reader import (
    BATCH_ROWS,
    ShardErrors,
    check_columns,
    live_rows,
    live_slice,
    open_shard,
    read_shard,
)
from pipeline.dataset.torch_rows import torch_rows

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    import ray.data
    from torch.utils.data import IterableDataset

_FAILURE_BATCH_ROWS = 1 << 14
_MAX_UNCHECKED_WIDTH = 1 << 14
"""If the footer gives an embedding of more values, a stored vector is read to confirm it."""


def open(path: str, version: str | None = None, snapshot: int | str | None = None) -> Dataset:
    """Opens the dataset at ``path``.

    Args:
        path: ``output.path`` of the config, or the folder of one version; a local path or any fsspec URL.
        version: None: the current one.
        snapshot: number of a snapshot, or name of a pin (`tessera snapshots --pin NAME`); None: the newest.

    Raises:
        ConfigError: no dataset at ``path``, no such version, snapshot or pin, or a newer contract than this reader's.
    """
    try:
        root = path.rstrip("/") if not path.endswith("://") else path
        storage.check_answers(root, "path")
        found = snapshots.numbers(root)
        if found and version not in (None, root.rsplit("/", 1)[-1]):
            raise ConfigError("version", f"{path!r} is the folder of one version, not {version!r}", "leave it out")
        if not found:
            root = storage.join(root, catalog.resolve_version(root, version, or_version=True))
            found = snapshots.numbers(root)
        return Dataset(root, snapshots.read(root, pins.resolve(root, snapshot, found)))
    except ConfigError:
        raise
    except Exception as error:  # a storage backend may raise any type: DNS, credentials, TLS
        advice = storage.advice(error.__cause__ or error) or "give a dataset's folder"
        raise ConfigError("path", f"cannot read {path!r} ({describe(error)})", advice) from error


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
        """The features by name, from the newest file. Raises ``ConfigError`` for values that no writer produces."""
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
        self._check_filter(names, filter)
        tables = [self.schema.empty_table().select(names)]
        columns = needed(self.schema, names, filter)
        tables += [read_shard(self.root, shard, self.schema, names, filter, columns) for shard in self.shards]
        return pa.concat_tables(tables)

    def batches(
        self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, batch_size: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of `to_arrow` in order, in batches of 1 to ``batch_size`` rows. Raises the same errors."""
        names = column_names(self.schema, columns)
        self._check_filter(names, filter)
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

    def _check_filter(self, names: list[str], filter: ds.Expression | None) -> None:
        import pyarrow.dataset as ds

        try:
            ds.dataset(self.schema.empty_table()).scanner(columns=names, filter=filter)
        except (pa.ArrowException, TypeError) as error:
            raise ConfigError(
                "filter", describe(error), f"an expression over the columns: {', '.join(self.schema.names)}"
            ) from error

    def to_torch(
        self, columns: Sequence[str] | None = None, rank: int = 0, world_size: int = 1, batch_size: int | None = None
    ) -> IterableDataset[dict[str, Any]]:
        """Returns a `torch.utils.data.IterableDataset` of rows as dicts of tensors.

        For a feature ``f``, ``f_embedding`` [D], ``f_tokens`` [N, d], ``f_token_ids`` [N], ``f_grid`` [3] and
        ``f_times`` [T] are tensors of the stored dtype. Strings and numbers are Python values, and null is None.
        Tensors are views of the batch that was read: clone those that you keep.

        Every row is returned exactly once over all ranks and their DataLoader workers. Each worker reads one contiguous
        range of the rows, in order, and opens only the shards of its range. Ranges differ by at most one row; nothing
        is padded or dropped. A loop that needs the same number of steps on every rank must stop after
        ``num_rows // world_size`` rows.

        Args:
            columns: None: all.
            rank: of this process, among ``world_size``.
            batch_size: None: single rows. Otherwise batches, as `collate` makes them, for
                ``DataLoader(..., batch_size=None)``; the last one of each worker may be smaller.

        Raises:
            ConfigError: an unknown column.
            ValueError: ``rank`` is not in ``[0, world_size)``.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        rows: IterableDataset[dict[str, Any]] = torch_rows(
            self, column_names(self.schema, columns), rank, world_size, batch_size
        )
        return rows

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
