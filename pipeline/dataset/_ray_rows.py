"""Rows of a dataset as a Ray dataset, and the collate function for it. Imports Ray when it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.dataset.collate import Collate
from pipeline.dataset.shards.reader import BATCH_ROWS, live_rows

if TYPE_CHECKING:
    import ray.data

    from pipeline.dataset.reader import Dataset


def ray_rows(dataset: Dataset, columns: list[str]) -> ray.data.Dataset:
    """Returns a Ray dataset of ``columns``. Each task reads one shard.

    Ray's own Parquet reader is not used: it does not leave out deleted rows, and it fixes the path of each shard, which
    may be moved before Ray reads it.
    """
    import ray.data

    if not dataset.shards:
        return ray.data.from_arrow(dataset.schema.empty_table().select(columns))

    def read(table: pa.Table) -> Iterator[pa.Table]:
        for number in table["shard"].to_pylist():
            for batch in live_rows(dataset.root, dataset.shards[number], columns, BATCH_ROWS, dataset.schema):
                yield pa.Table.from_batches([batch])

    blocks = [pa.table({"shard": [number]}) for number in range(len(dataset.shards))]
    return ray.data.from_arrow(blocks).map_batches(read, batch_format="pyarrow", batch_size=None)


def ray_collate(collate: Collate) -> Callable[[pa.Table], dict[str, Any]]:
    """Returns ``collate`` as an instance of the class that Ray's ``iter_torch_batches`` expects."""
    from ray.data.collate_fn import ArrowBatchCollateFn

    class ArrowCollate(ArrowBatchCollateFn):  # type: ignore[misc]  # Ray has no types
        def __call__(self, batch: pa.Table) -> dict[str, Any]:
            tensors: dict[str, Any] = collate(batch)
            return tensors

    return ArrowCollate()
