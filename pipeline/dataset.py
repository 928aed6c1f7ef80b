"""Reading a dataset: snapshots, Arrow, torch, Ray. Needs neither Ray nor transformers, and torch only for `to_torch`.

    dataset = open("OUT")
    dataset.to_arrow(["sample_id", "photo_embedding"], pc.field("photo_embedding").is_valid())
    DataLoader(dataset.to_torch(["photo_tokens", "caption_embedding"]), batch_size=64, collate_fn=dataset.collate)

The files under ``data/`` are plain Parquet; what this adds is the snapshot (exact at any time), the lineage
and tensors without a Python loop over values.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline import snapshots, storage
from pipeline.collate import Collate, Column
from pipeline.errors import ConfigError, describe
from pipeline.reading import BATCH_ROWS, Reading, filtered, live_rows, live_slice, open_shard, scanner, whole
from pipeline.schema import FAILURES, FIXED, column
from pipeline.snapshots import File, Snapshot

if TYPE_CHECKING:
    import ray.data
    from torch.utils.data import IterableDataset

_TENSOR_ROWS = 64
PARTS = ("embedding", "tokens", "prefix_tokens", "token_ids", "grid", "times")
"""What a feature's columns may hold."""


@dataclass(frozen=True)
class Feature:
    """What the footers say of a feature."""

    name: str
    modality: str
    emit: tuple[str, ...] = ()
    model: str = ""
    model_type: str | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    tokenizer: str | None = None
    processor: Any = None
    head: str | None = None
    space: str = ""
    """Identity of the vector space of the embeddings. Only vectors of one space may be compared."""
    normalized: bool = False
    dim: int | None = None
    """Length of an embedding."""
    token_dim: int | None = None
    """Width of a token vector."""
    dtype: str | None = None
    """Of the computation; ``embedding_dtype`` and ``token_dtype`` are those of the columns."""
    embedding_dtype: str | None = None
    token_dtype: str | None = None
    prompt: str | None = None
    fingerprint: str = ""


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
    name = version or snapshots.current(root)
    if name is None:
        raise ConfigError("path", f"{root!r} holds no dataset", "give output.path of a finished run, or its version")
    if version is not None and version not in (known := snapshots.versions(root)):
        raise ConfigError("version", f"there is no version {version!r} in {root!r}", f"one of: {', '.join(known)}")
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
        """Columns in their stored types, without the files' metadata. Only the fixed ones if there is no row."""
        return self._footer.remove_metadata() if self.shards else FIXED

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """The whole footer: contract, run, window, features, versions of the libraries."""
        lineage: dict[str, Any] = json.loads((self._footer.metadata or {}).get(b"tessera", b"{}"))
        return lineage

    @cached_property
    def features(self) -> dict[str, Feature]:
        known = {field.name for field in fields(Feature)}
        return {
            name: Feature(**{k: v for k, v in values.items() if k in known} | {"name": name, "emit": tuple(emit)})
            for name, values in self.lineage.get("features", {}).items()
            for emit in [values.get("emit", ())]
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
        tables += [whole(self.root, shard, self.schema, names, filter) for shard in self.shards]
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
        tables = [whole(self.root, shard, FAILURES, FAILURES.names, None) for shard in self.failure_shards]
        return pa.concat_tables([FAILURES.empty_table(), *tables])

    def _batches(self, names: list[str], filter: ds.Expression | None, batch_size: int) -> Iterator[pa.RecordBatch]:
        """Shard by shard: rows in order, of a shard without deletions by Arrow's own scanner."""
        for shard in self.shards:
            if shard.deleted:
                yield from filtered(self._live(shard, filter, names, batch_size), filter, names, batch_size)
                continue
            with Reading(self.root):
                scan = scanner(self.root, shard, self.schema, names, filter, batch_size)
                yield from (batch for batch in scan.to_batches() if len(batch))

    def _live(
        self, shard: File, filter: ds.Expression | None, names: list[str], batch_size: int
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a shard that are not deleted; with a filter all columns, since it may name any."""
        with Reading(self.root):
            yield from live_rows(self.root, shard, names if filter is None else self.schema.names, batch_size)

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
    def _footer(self) -> pa.Schema:
        newest = [*self.failure_shards, *self.shards][-1:]
        with Reading(self.root):
            return open_shard(self.root, newest[0]).schema_arrow if newest else pa.schema([])

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
        parts = {column(f.name, part): (part, f.dim) for f in self.features.values() for part in PARTS}
        return Collate({field.name: Column.of(field, *parts.get(field.name, (None, None))) for field in self.schema})

    def rows_between(self, start: int, end: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Rows ``[start, end)`` of the dataset, reading only the row groups that hold them."""
        before = 0
        for shard in self.shards:
            first, last = max(0, start - before), min(shard.live, end - before)
            before += shard.live
            if first < last:
                with Reading(self.root), open_shard(self.root, shard) as file:
                    yield from live_slice(file, shard, first, last, columns, rows)

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
                for batch in self._live(self.shards[number], None, names, BATCH_ROWS):
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


def _torch_rows(dataset: Dataset, columns: list[str], rank: int, world_size: int, batch_size: int | None) -> Any:
    """The `IterableDataset`. A function, so that this module loads without torch; it also unpickles by it."""
    from torch.utils.data import IterableDataset, get_worker_info

    class Rows(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = get_worker_info()
            start, end = _share(0, dataset.num_rows, rank, world_size)
            if worker is not None:
                start, end = _share(start, end, worker.id, worker.num_workers)
            batches = dataset.rows_between(start, end, columns, batch_size or _TENSOR_ROWS)
            if batch_size is not None:
                yield from (dataset.collate(table) for table in _regroup(batches, batch_size))
                return
            for batch in batches:
                values = dict(dataset.collate.columns_of(batch))
                yield from ({name: values[name][i] for name in columns} for i in range(len(batch)))

        def __reduce__(self) -> Any:
            return _torch_rows, (dataset, columns, rank, world_size, batch_size)

    return Rows()


def _share(start: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """Part ``part`` of ``parts`` of ``[start, end)``: contiguous, and no two differ by more than one row."""
    rows = end - start
    return start + rows * part // parts, start + rows * (part + 1) // parts


def _regroup(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Tables of exactly ``rows`` rows; the last may be smaller."""
    held: list[pa.RecordBatch] = []
    missing = rows
    for batch in batches:
        while len(batch):
            held.append(batch.slice(0, missing))
            batch, missing = batch.slice(len(held[-1])), missing - len(held[-1])
            if not missing:
                yield pa.Table.from_batches(held)
                held, missing = [], rows
    if held:
        yield pa.Table.from_batches(held)
