"""Rows of a dataset as a `torch.utils.data.IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pipeline.dataset.reader import Dataset


_READ_ROWS = 64
"""Rows that are read together if single rows are returned."""


def torch_rows(dataset: Dataset, columns: list[str], rank: int, world_size: int, batch_size: int | None) -> Any:
    """Returns an `IterableDataset` of rows, or of batches. See `Dataset.to_torch`.

    The class is defined in the function, so that this module can be imported without torch. Its instances are unpickled
    by calling this function.
    """
    from torch.utils.data import IterableDataset, get_worker_info

    class Rows(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = get_worker_info()
            start, end = _share(0, dataset.num_rows, rank, world_size)
            if worker is not None:
                start, end = _share(start, end, worker.id, worker.num_workers)
            batches = dataset.rows_between(start, end, columns, batch_size or _READ_ROWS)
            if batch_size is not None:
                yield from (dataset.collate(table) for table in _regroup(batches, batch_size))
                return
            for batch in batches:
                values = dict(dataset.collate.columns_of(batch))
                yield from ({name: values[name][i] for name in columns} for i in range(len(batch)))

        def __reduce__(self) -> Any:
            return torch_rows, (dataset, columns, rank, world_size, batch_size)

    return Rows()


def _share(start: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """Returns range ``part`` of ``parts`` contiguous ranges of ``[start, end)``, whose sizes differ by at most 1."""
    rows = end - start
    return start + rows * part // parts, start + rows * (part + 1) // parts


def _regroup(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yields the rows of ``batches`` as tables of exactly ``rows`` rows; the last one may be smaller."""
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
