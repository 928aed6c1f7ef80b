"""Reads a dataset: snapshots, Arrow, torch, Ray. Needs neither Ray nor transformers, and torch only for `to_torch`.

    dataset = open("OUT")
    dataset.to_arrow(["sample_id", "photo_embedding"], pc.field("photo_embedding").is_valid())
    DataLoader(dataset.to_torch(["photo_tokens", "caption_embedding"]), batch_size=64, collate_fn=dataset.collate)

The files under ``data/`` are plain Parquet; what this adds is the snapshot (exact at any time), the lineage
and tensors without a Python loop over values.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FAILURES, FIXED, column
from pipeline.core.strict_json import Value
from pipeline.dataset.collate import Collate, Column
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.folder import check_version
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.feature_info import FeatureInfo, _columns, _fits
from pipeline.dataset.shards.reader import (
    BATCH_ROWS,
    ShardErrors,
    check_columns,
    filtered,
    live_rows,
    live_slice,
    needed,
    open_shard,
    whole,
)
from pipeline.dataset.torch_rows import _torch_rows

if TYPE_CHECKING:
    import ray.data
    from torch.utils.data import IterableDataset

_FAILURE_ROWS = 1 << 14
_BELIEVED_WIDTH = 1 << 14
"""A wider embedding must be in a file, not only in its footer."""


def open(path: str, version: str | None = None, snapshot: int | None = None) -> Dataset:
    """The dataset at ``path``.

    Args:
        path: what the config calls ``output.path``, or one version's folder; local or any fsspec URL.
        version: None: the one with the newest snapshot.
        snapshot: None: the newest.

    Raises:
        ConfigError: no dataset there, no such version or snapshot, or a newer contract than this reader's.
    """
    try:
        root = path.rstrip("/") if not path.endswith("://") else path
        found = snapshots.numbers(root)
        if found and version not in (None, root.rsplit("/", 1)[-1]):
            raise ConfigError("version", f"{path!r} is the folder of one version, not {version!r}", "leave it out")
        if not found:
            root = storage.join(root, _version(root, version))
            found = snapshots.numbers(root)
        number = max(found) if snapshot is None else snapshot
        if number not in found:
            known = ", ".join(str(one) for one in sorted(found))
            raise ConfigError("snapshot", f"there is no snapshot {number} in {root!r}", f"one of: {known}")
        return Dataset(root, snapshots.read(root, number))
    except ConfigError:
        raise
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError("path", f"cannot read {path!r} ({describe(error)})", "give a dataset's folder") from error


def _version(root: str, version: str | None) -> str:
    if version is not None:
        check_version(root, version)
    name = version or catalog.current(root)
    if name is None:
        raise catalog.no_dataset(root, or_version=True)
    if version is not None and not catalog.is_version(root, version):
        known = ", ".join(catalog.versions(root))
        raise ConfigError("version", f"there is no version {version!r} in {root!r}", f"one of: {known}")
    return name


class Dataset:
    """One snapshot of one version. Picklable; opens files only when it reads, and finds them wherever later runs have
    moved them since."""

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
        """Columns in their stored types, without the files' metadata. Only the fixed ones if there is no row.

        Raises:
            ConfigError: the newest file has not the columns that every row has, or those of a feature in other types.
        """
        if not self.shards:
            return FIXED
        found = self._footer.remove_metadata()
        check_columns(self.root, self.shards[-1], found, [*FIXED.names])
        parts = {name: (feature, part) for feature in self.features.values() for name, part in _columns(feature)}
        names = Counter(found.names)
        for field in found:
            fits = field.name not in FIXED.names or FIXED.field(field.name).type == field.type
            if field.name in parts:
                fits = _fits(*parts[field.name], field.type)
            if not fits or names[field.name] > 1:
                raise ConfigError(
                    "path",
                    f"{self.shards[-1].path!r} of {self.root!r} has a column {field.name!r} of {str(field.type)[:100]}",
                    "restore it, or open another snapshot",
                )
        return found

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """The whole footer: contract, run, window, features, versions of the libraries."""
        lineage: dict[str, Any] = self._lineage.plain()
        return lineage

    @cached_property
    def _lineage(self) -> Value:
        place = f"the footer of {self._newest.path!r} of {self.root!r}" if self._newest else ""
        value = strict_json.parse((self._footer.metadata or {}).get(b"tessera", b"{}"), place)
        value.object()
        return value

    @cached_property
    def features(self) -> dict[str, FeatureInfo]:
        """What the newest file's footer says. Raises ``ConfigError`` for a footer that no writer makes."""
        return {
            name: FeatureInfo.of(name, values) for name, values in self._lineage.member("features", {}).object().items()
        }

    @property
    def spaces(self) -> dict[str, list[str]]:
        """Space -> the features that live in it."""
        found: dict[str, list[str]] = {}
        for name, feature in self.features.items():
            found.setdefault(feature.space, []).append(name)
        return found

    # -- Arrow -----------------------------------------------------------------------------------

    def to_arrow(self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
        """All rows, or those that ``filter`` (an expression over any columns) keeps.

        Raises:
            ConfigError: an unknown column, a filter that does not fit, a shard that is gone.
        """
        names = self._names(columns)
        self._check_filter(names, filter)
        tables = [self.schema.empty_table().select(names)]
        columns = needed(self.schema, names, filter)
        tables += [whole(self.root, shard, self.schema, names, filter, columns) for shard in self.shards]
        return pa.concat_tables(tables)

    def batches(
        self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None, batch_size: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The same rows in order, at most ``batch_size`` at a time; none is empty. Raises as `to_arrow` does."""
        names = self._names(columns)
        self._check_filter(names, filter)
        return self._batches(names, filter, batch_size)

    def failures(self) -> pa.Table:
        """Every (row, feature) that could not be produced, with stage, kind and message."""
        names = FAILURES.names
        tables = [whole(self.root, shard, FAILURES, names, None, names) for shard in self.failure_shards]
        return pa.concat_tables([FAILURES.empty_table(), *tables])

    def failure_batches(self) -> Iterator[pa.RecordBatch]:
        """The same, some thousands at a time."""
        for shard in self.failure_shards:
            yield from live_rows(self.root, shard, FAILURES.names, _FAILURE_ROWS, FAILURES)

    def _batches(self, names: list[str], filter: ds.Expression | None, batch_size: int) -> Iterator[pa.RecordBatch]:
        columns = needed(self.schema, names, filter)
        for shard in self.shards:
            batches = live_rows(self.root, shard, columns, batch_size, self.schema)
            yield from filtered(batches, filter, names, batch_size)

    def _check_filter(self, names: list[str], filter: ds.Expression | None) -> None:
        try:
            ds.dataset(self.schema.empty_table()).scanner(columns=names, filter=filter)
        except (pa.ArrowException, TypeError) as error:
            raise ConfigError(
                "filter", describe(error), f"an expression over the columns: {', '.join(self.schema.names)}"
            ) from error

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self.schema.names)
        assert not isinstance(columns, str), "columns is a list of names"
        for name in columns:
            if name not in self.schema.names:
                raise ConfigError("columns", f"there is no column {name!r}", f"one of: {', '.join(self.schema.names)}")
        return list(columns)

    @cached_property
    def _newest(self) -> File | None:
        return next(iter([*self.failure_shards, *self.shards][-1:]), None)

    @cached_property
    def _footer(self) -> pa.Schema:
        if self._newest is None:
            return pa.schema([])
        with ShardErrors(self.root, self._newest):
            return open_shard(self.root, self._newest).schema_arrow

    # -- torch -----------------------------------------------------------------------------------

    def to_torch(
        self, columns: Sequence[str] | None = None, rank: int = 0, world_size: int = 1, batch_size: int | None = None
    ) -> IterableDataset[dict[str, Any]]:
        """A `torch.utils.data.IterableDataset` of rows as dicts of tensors.

        ``f_embedding`` [D], ``f_tokens`` [N, d], ``f_token_ids`` [N], ``f_grid`` [3] and ``f_times`` [T] are tensors of
        the stored dtype, strings and numbers plain Python values, and null is None. Tensors are views of the batch that
        was read: clone what you keep.

        Every row comes exactly once over all ranks and their DataLoader workers. Each takes one contiguous range of
        the rows, in order, so it opens only its own shards; ranges differ by at most one row, and nothing is padded
        or dropped to make them equal: a loop that needs as many steps on every rank must stop at the shortest,
        ``num_rows // world_size`` rows.

        Args:
            columns: None: all.
            rank: of this process among ``world_size``.
            batch_size: None: rows. Else batches as `collate` makes them, for ``DataLoader(..., batch_size=None)``; the
                last one of each worker may be smaller.

        Raises:
            ConfigError: an unknown column.
            ValueError: a rank outside the world.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        rows: IterableDataset[dict[str, Any]] = _torch_rows(self, self._names(columns), rank, world_size, batch_size)
        return rows

    @cached_property
    def collate(self) -> Collate:
        """Rows, or a batch of Arrow or numpy columns, to one dict of tensors; nulls are accepted."""
        parts = {name: (part, f.dim) for f in self.features.values() for name, part in _columns(f)}
        for f in self.features.values():
            if (f.dim or 0) > _BELIEVED_WIDTH:
                self._check_width(column(f.name, "embedding"), f.dim or 0)
        return Collate({field.name: Column.of(field, *parts.get(field.name, (None, None))) for field in self.schema})

    def _check_width(self, name: str, width: int) -> None:
        """Raises ``ConfigError`` unless a file holds a vector of that width: a batch of nulls is as wide as the footer
        says."""
        if name not in self.schema.names:
            return
        for batch in self.batches([name]):
            lengths = pc.list_value_length(batch.column(0))
            if pc.max(lengths).as_py() is not None:
                if pc.max(lengths).as_py() == width:
                    return
                break
        raise ConfigError(
            "path", f"a footer of {self.root!r} says {width} values in {name!r}, no row has them", "restore the shards"
        )

    def rows_between(self, start: int, end: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Rows ``[start, end)`` of the dataset, reading only the row groups that hold them."""
        before = 0
        for shard in self.shards:
            first, last = max(0, start - before), min(shard.live, end - before)
            before += shard.live
            if first < last:
                with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
                    check_columns(self.root, shard, file.schema_arrow, columns)
                    yield from live_slice(file, shard, first, last, columns, rows, self.schema)

    # -- Ray -------------------------------------------------------------------------------------

    def to_ray(self, columns: Sequence[str] | None = None) -> ray.data.Dataset:
        """A Ray dataset of this snapshot's rows. Its `iter_torch_batches` raises at nulls: give it `ray_collate`.

        Tasks read a shard each, as `batches` does. Ray's own reader knows no deleted rows, and takes the place that a
        shard has now: it may have been moved when Ray comes to read it.
        """
        import ray.data

        names = self._names(columns)
        if not self.shards:
            return ray.data.from_arrow(self.schema.empty_table().select(names))

        def read(table: pa.Table) -> Iterator[pa.Table]:
            for number in table["shard"].to_pylist():
                for batch in live_rows(self.root, self.shards[number], names, BATCH_ROWS, self.schema):
                    yield pa.Table.from_batches([batch])

        blocks = [pa.table({"shard": [number]}) for number in range(len(self.shards))]
        return ray.data.from_arrow(blocks).map_batches(read, batch_format="pyarrow", batch_size=None)

    def ray_collate(self) -> Callable[[pa.Table], dict[str, Any]]:
        """`collate` as the class that Ray wants: ``iter_torch_batches(collate_fn=dataset.ray_collate())``."""
        from ray.data.collate_fn import ArrowBatchCollateFn

        collate = self.collate

        class ArrowCollate(ArrowBatchCollateFn):  # type: ignore[misc]  # Ray has no types
            def __call__(self, batch: pa.Table) -> dict[str, Any]:
                done: dict[str, Any] = collate(batch)
                return done

        return ArrowCollate()


# -- torch ----------------------------------------------------------------------------------------
