"""Makes a `TorchReader` of one dataset or of a mixture, from arguments that it checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset._checks import column_names
from pipeline.dataset.collate import Collate, Column
from pipeline.dataset.loading import sequence as sequences
from pipeline.dataset.loading.labels import check_labels
from pipeline.dataset.loading.order.deal import Tail
from pipeline.dataset.loading.place import PlacedCollate

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from pipeline.dataset.loading.torch_reader import TorchReader
    from pipeline.dataset.reader import Dataset

MAX_OPEN_BYTES = 9 << 28
"""Default of ``max_open_bytes``, 2.25 GiB: row groups of 32 MiB, Tessera's default size, for 64 streams, two that are
decoded ahead, and a tenth more for the order of rows."""
OnError = Literal["raise", "skip"]
Weighted = tuple["Dataset", float, "ds.Expression | None"]
"""A dataset of a mixture, its weight, and the rows of it that are read."""


class BatchOptions(TypedDict, total=False):
    """Options of `Dataset.to_torch` for batches."""

    shuffle: bool
    """Whether each epoch has another order. Default: False, the stored order."""
    seed: int
    """Decides the orders. Default: 0."""
    epoch: int
    """The first epoch. Default: 0."""
    filter: ds.Expression
    """The rows to read: an expression of `pyarrow.compute` over any columns."""
    tail: Tail
    """What happens to the last rows of an epoch, if not every rank would have a full batch. Default: short."""
    collate: Callable[[pa.RecordBatch], Any] | PlacedCollate
    """Makes a batch of the read columns. Default: `Dataset.collate`. If its attribute ``wants_place`` is true, it is
    called with the record batch and its `Place`."""
    streams: int
    """Row groups that are read in turn. Default: 64 with a shuffle, fewer if they take over ``max_open_bytes``
    with two groups that are decoded ahead; 1 without."""
    chunk_rows: int
    """Rows that are read from each in turn. Default: up to 32."""
    max_open_bytes: int
    """Bytes that row groups may take in a process, decoded or being decoded. Default: 2.25 GiB."""
    threads: int
    """Row groups that a process decodes at the same time. Default: 2; 8 for an object store."""
    labels: pa.Table
    """Columns to add, by ``sample_id``, and by ``window`` if the table has this column. Rows that are not in the table
    are left out."""
    on_error: OnError
    """skip: rows that cannot be read are left out and counted. Default: raise."""


class MixOptions(BatchOptions, total=False):
    """Options of `mix`."""

    epoch_rows: int
    """Rows of an epoch. Default: all rows of all datasets."""


def mix(
    datasets: Sequence[tuple[Dataset, float] | Weighted],
    columns: Sequence[str],
    batch_size: int,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Unpack[MixOptions],
) -> TorchReader:
    """Returns batches of several datasets, each with its share of the rows.

    A dataset whose rows were all read begins its next epoch, in another order.

    Args:
        datasets: (dataset, weight), or (dataset, weight, filter). A dataset may occur several times.
        columns: columns that all datasets have, with the same types.
        batch_size: rows of a batch.
        rank: as for `Dataset.to_torch`.
        world_size: as for `Dataset.to_torch`.
        options: as for `Dataset.to_torch`, except ``filter``; and ``epoch_rows``.

    Raises:
        ConfigError: an unknown column, an option of wrong value, or ranks that contradict each other.
    """
    if "filter" in options:
        raise ConfigError("filter", "given for all datasets", "(dataset, weight, filter) for each")
    sources: list[Weighted] = [(*one, None) if len(one) == 2 else one for one in datasets]
    if not sources:
        raise ConfigError("datasets", "none", "at least one dataset")
    for _, weight, _ in sources:
        if not 0 < weight < float("inf"):
            raise ConfigError("weights", f"{weight}", "numbers over 0")
    rows = options.pop("epoch_rows", None)
    if rows is not None:
        _check("epoch_rows", rows, 1)
    names = [column_names(data.schema, columns) for data, _, _ in sources]
    return read_batches(sources, names[0], rank, world_size, batch_size, options, rows or 0)


def read_batches(
    sources: Sequence[Weighted],
    columns: list[str],
    rank: int | None,
    world_size: int | None,
    batch_size: int,
    options: BatchOptions,
    epoch_rows: int | None = None,
) -> TorchReader:
    """Returns the batches of one dataset, or of a mixture.

    Args:
        sources: the datasets.
        columns: the columns to read.
        rank: of this process; None: find it.
        world_size: number of ranks; None: find it.
        batch_size: rows of a batch.
        options: see `BatchOptions`.
        epoch_rows: rows of an epoch of a mixture, 0: all rows; None: one dataset.
    """
    from pipeline.dataset.loading.torch_reader import TorchReader

    tail, on_error = _checked(batch_size, options)
    labels = options.get("labels")
    if labels is not None:
        check_labels(labels, columns)
    found = tuple(
        sequences.Source(data, tuple(columns), filter, weight, on_error == "skip", labels)
        for data, weight, filter in sources
    )
    if epoch_rows is not None:
        epoch_rows = epoch_rows or sum(source.index.rows for source in found)
    sequence = sequences.Sequence(
        found,
        batch_size,
        options.get("seed", 0),
        options.get("shuffle", False),
        tail,
        options.get("streams"),
        options.get("chunk_rows"),
        epoch_rows,
        options.get("max_open_bytes", MAX_OPEN_BYTES),
    )
    collate = options.get("collate") or _default_collate(sources[0][0], labels)
    return TorchReader(sequence, collate, rank, world_size, options.get("epoch", 0), options.get("threads"))


def _default_collate(data: Dataset, labels: pa.Table | None) -> Collate:
    if labels is None:
        return data.collate
    return Collate({**data.collate.columns, **{field.name: Column.of(field, None, None) for field in labels.schema}})


def _checked(batch_size: int, options: BatchOptions) -> tuple[Tail, OnError]:
    """Checks the options. Returns ``tail`` and ``on_error``."""
    if unknown := sorted(options.keys() - BatchOptions.__annotations__.keys()):
        raise TypeError(f"unknown option {unknown[0]!r}; one of: {', '.join(sorted(BatchOptions.__annotations__))}")
    _check("batch_size", batch_size, 1)
    given: dict[str, Any] = {**options}
    for name, least in {
        "streams": 1,
        "chunk_rows": 1,
        "max_open_bytes": 1,
        "threads": 1,
        "seed": 0,
        "epoch": 0,
    }.items():
        if name in given:
            _check(name, given[name], least)
    tail, on_error = options.get("tail", "short"), options.get("on_error", "raise")
    for name, value, allowed in (("tail", tail, get_args(Tail)), ("on_error", on_error, get_args(OnError))):
        if value not in allowed:
            raise ConfigError(name, f"found {value!r}", f"one of: {', '.join(allowed)}")
    return tail, on_error


def _check(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(name, f"found {value!r}", f"a whole number, at least {least}")
