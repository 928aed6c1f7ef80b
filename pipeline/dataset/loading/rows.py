"""Rows of a dataset as a `torch.utils.data.IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.dataset.loading.ranks import resolve_ranks

if TYPE_CHECKING:
    from pipeline.dataset.reader import Dataset


_READ_ROWS = 64
"""Rows that are read together."""


def torch_rows(
    dataset: Dataset, columns: list[str], rank: int | None, world_size: int | None, otherwise: tuple[int, int] = (0, 1)
) -> Any:
    """Returns an `IterableDataset` of rows. See `Dataset.to_torch`.

    The class is defined in the function, so that this module can be imported without torch. Its instances are unpickled
    by calling this function.

    Args:
        dataset: the snapshot.
        columns: names.
        rank: of the process that iterates; None: find it.
        world_size: number of ranks; None: find it.
        otherwise: rank and number of ranks if nothing is given or found.
    """
    from torch.utils.data import IterableDataset, get_worker_info

    resolve_ranks(rank, world_size, otherwise)  # raises for wrong ones

    class Rows(IterableDataset[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = get_worker_info()
            start, end = _share(0, dataset.num_rows, *resolve_ranks(rank, world_size, otherwise))
            if worker is not None:
                start, end = _share(start, end, worker.id, worker.num_workers)
            for batch in dataset.rows_between(start, end, columns, _READ_ROWS):
                values = dict(dataset.collate.columns_of(batch))
                yield from ({name: values[name][i] for name in columns} for i in range(len(batch)))

        def __reduce__(self) -> Any:
            return torch_rows, (dataset, columns, rank, world_size, resolve_ranks(rank, world_size, otherwise))

    return Rows()


def _share(start: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """Returns range ``part`` of ``parts`` contiguous ranges of ``[start, end)``, whose sizes differ by at most 1."""
    rows = end - start
    return start + rows * part // parts, start + rows * (part + 1) // parts
