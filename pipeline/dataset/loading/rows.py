"""Rows of a dataset as a `torch.utils.data.IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.dataset.reader import Dataset


_READ_ROWS = 64
"""Rows that are read together."""


def torch_rows(dataset: Dataset, columns: list[str], rank: int, world_size: int) -> Any:
    """Returns an `IterableDataset` of rows. See `Dataset.to_torch`.

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
            for batch in dataset.rows_between(start, end, columns, _READ_ROWS):
                values = dict(dataset.collate.columns_of(batch))
                yield from ({name: values[name][i] for name in columns} for i in range(len(batch)))

        def __reduce__(self) -> Any:
            return torch_rows, (dataset, columns, rank, world_size)

    return Rows()


def _share(start: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """Returns range ``part`` of ``parts`` contiguous ranges of ``[start, end)``, whose sizes differ by at most 1."""
    rows = end - start
    return start + rows * part // parts, start + rows * (part + 1) // parts
