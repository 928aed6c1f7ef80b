"""Errors of worker processes, as the trainer's process raises them: one line.

torch makes an exception of a text of many lines, with another type if the type takes more arguments than one.

This module imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from pipeline.core.errors import TesseraError


@dataclass(frozen=True)
class WorkerError:
    """Takes the place of a batch that a worker process could not read. Picklable."""

    error: TesseraError


class WithWorkerErrors(IterableDataset[Any]):
    """The batches of a dataset. In a worker process the last one is a `WorkerError` if Tessera has raised an error.

    Args:
        batches: the dataset.
    """

    def __init__(self, batches: IterableDataset[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is None:
            return iter(self.batches)
        try:
            return _with_errors(iter(self.batches))  # no generator: an iteration begins when torch asks for it
        except TesseraError as error:
            return iter([WorkerError(error)])


def _with_errors(batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except TesseraError as error:
        yield WorkerError(error)


def checked(batch: Any) -> Any:
    """Returns a batch, or raises the error that is in its place."""
    if isinstance(batch, WorkerError):
        raise batch.error
    return batch
