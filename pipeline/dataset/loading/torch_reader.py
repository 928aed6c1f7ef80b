"""Batches of a dataset as a `torch.utils.data.IterableDataset`, in an order that any number of ranks and workers share.

This module imports torch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import state as states
from pipeline.dataset.loading.decoded import GroupReader
from pipeline.dataset.loading.order.deal import Range
from pipeline.dataset.loading.order.epoch import Rows
from pipeline.dataset.loading.place import Place, PlacedCollate
from pipeline.dataset.loading.ranks import resolve_ranks
from pipeline.dataset.loading.reading import BatchReading, ReadCounts
from pipeline.dataset.loading.sequence import Sequence

if TYPE_CHECKING:
    from pipeline.dataset.loading.loader import Loader

_MAX_WORKERS = 1024
_THREADS, _REMOTE_THREADS = 2, 8
"""Row groups that a process decodes at the same time, of a local dataset and of one on an object store."""


class TorchReader(IterableDataset[Any]):
    """Batches of a dataset or of a mixture. `Dataset.to_torch` and `dataset.mix` make it. Picklable.

    Iterate it, or `loader` for worker processes. Each iteration is an epoch. `state_dict` is what a checkpoint stores;
    it is the same on all ranks.

    Attributes:
        counts: what this process has read in the last iteration. Worker processes have their own.
    """

    def __init__(
        self,
        sequence: Sequence,
        collate: Callable[[pa.RecordBatch], Any] | PlacedCollate,
        rank: int | None,
        world_size: int | None,
        epoch: int,
        threads: int | None,
    ) -> None:
        resolve_ranks(rank, world_size), sequence.shape  # both raise for wrong arguments
        self.sequence, self.collate = sequence, collate
        self.counts = ReadCounts()
        self._ranks, self._threads = (rank, world_size), threads
        self._begin: torch.Tensor = _shared([epoch, 0])
        """Epoch and position at which the next iteration begins. Worker processes read it when they begin one."""
        self._finished: torch.Tensor = _shared([0] * _MAX_WORKERS)
        """For each worker process, the epoch after the one that it has read to the end."""
        self._handed, self._is_loaded = 0, False
        """Batches that the trainer's process was given since ``_begin``; whether `load_state_dict` set ``_begin``."""
        self._skipped = 0
        """Batches of this worker process that the next iteration leaves out."""
        self._worker_state: dict[str, int] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, or of the next one if none has begun."""
        return int(self._begin[0])

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration read ``epoch``, from its first batch. A loaded state of that epoch keeps its
        position."""
        if not (self._is_loaded and epoch == self.epoch):
            self._set_begin(epoch, 0)

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch that is read from its first batch on."""
        return self.sequence.deal(0, self.ranks[1]).rounds

    @property
    def remaining(self) -> int:
        """Number of batches of this rank that the epoch still has: fewer than ``len`` if a state was loaded."""
        return self.sequence.deal(int(self._begin[1]), self.ranks[1]).rounds - self._handed

    @property
    def ranks(self) -> tuple[int, int]:
        """The rank of this process, and the number of ranks."""
        return resolve_ranks(*self._ranks)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None:
            yield from self._worker_batches(worker.id, worker.num_workers)
            return
        self.begin_iteration()
        epoch, position = self._begin.tolist()
        for batch in self._batches(epoch, position, 0, 1):
            self.hand_out()
            yield batch
        self.end_iteration()

    def loader(self, num_workers: int = 0, **options: Any) -> Loader:
        """Returns a loader whose ``num_workers`` processes read batches, and which counts those that it returns.

        Args:
            num_workers: processes of this rank; 0: this process.
            options: of torch's ``DataLoader``: ``pin_memory``, ``prefetch_factor``, ``persistent_workers``,
                ``multiprocessing_context``, ``timeout``, ``worker_init_fn``.
        """
        from pipeline.dataset.loading.loader import Loader

        return Loader(self, num_workers, options)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state after the batches that were returned so far: plain values, the same on all ranks.

        In a worker process of another loader (torchdata's ``StatefulDataLoader``) it is the state of that process.
        """
        if self._worker_state is not None:
            epoch, position = self._worker_state["epoch"], self._worker_state["position"]
            return {**states.save(self.sequence, epoch, position), "worker": dict(self._worker_state)}
        epoch, start = self._begin.tolist()
        deal = self.sequence.deal(start, self.ranks[1])
        if self._handed and self._handed >= deal.rounds:
            return states.save(self.sequence, epoch + 1, 0)
        return states.save(self.sequence, epoch, deal.end(self._handed))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration begin after the batches of a state, on any number of ranks and workers.

        Raises:
            ConfigError: not a state, a state of other settings, or a snapshot that is gone.
        """
        self.sequence, epoch, position = states.load(self.sequence, state)
        self._set_begin(epoch, position)
        self._is_loaded = True
        self._skipped = int(state["worker"]["batches"]) if "worker" in state else 0

    def report(self) -> dict[str, int]:
        """Returns the rows of the current epoch, those that the last round repeats, and those that it leaves out.

        The last two are numbers of all ranks together.
        """
        deal = self.sequence.deal(int(self._begin[1]), self.ranks[1])
        dropped = deal.left_rows if deal.tail == "drop" else 0
        lost = sum(source.index.lost_rows for source in self.sequence.sources)
        return {"rows": deal.rows, "repeated": deal.repeated_rows, "dropped": dropped, "unreadable": lost}

    def begin_iteration(self) -> None:
        """Goes on to the next epoch if this one has begun. Called in the trainer's process only."""
        if self._handed:
            self._set_begin(self.epoch + 1, 0)
        self._finished.zero_()
        self._is_loaded = False

    def hand_out(self) -> None:
        """Counts a batch that the trainer is given."""
        self._handed += 1

    def end_iteration(self) -> None:
        """Sets the next iteration to the next epoch."""
        self._set_begin(self.epoch + 1, 0)

    def _set_begin(self, epoch: int, position: int) -> None:
        self._begin[0], self._begin[1] = epoch, position
        self._handed, self._is_loaded = 0, False
        self._finished.zero_()

    def _worker_batches(self, worker: int, workers: int) -> Iterator[Any]:
        """Yields the batches of a worker process. The processes go on to the next epoch when all have read one."""
        epoch, position = self._begin.tolist()
        finished = int(self._finished[:workers].min())
        if finished > epoch:
            epoch, position = finished, 0
        done, self._skipped = self._skipped, 0
        self._worker_state = {"epoch": epoch, "position": position, "batches": done}
        for batch in self._batches(epoch, position, worker, workers, done):
            self._worker_state["batches"] += 1
            yield batch
        self._finished[worker] = epoch + 1

    def _batches(self, epoch: int, start: int, worker: int, workers: int, done: int = 0) -> Iterator[Any]:
        """Yields batches of one process, without the first ``done``."""
        rank, world_size = self.ranks
        rows, deal = self.sequence.epoch(epoch), self.sequence.deal(start, world_size)
        planned: deque[list[Range]] = deque()

        def plans() -> Iterator[list[Rows]]:
            for number in itertools.islice(range(worker, deal.rounds, workers), done, None):
                planned.append(deal.batch(rank, number))
                yield [one for first, end in planned[-1] for one in rows.read(first, end)]

        readers = self._readers()
        reading = BatchReading(
            readers,
            plans(),
            rows.permuted,
            self.sequence.max_open_bytes,
            self._threads or (_THREADS if all(storage.is_local(one.root) for one in readers) else _REMOTE_THREADS),
            self.sequence.sources[0].skip_unreadable,
        )
        self.counts = reading.counts
        wants_place = getattr(self.collate, "wants_place", False)
        for batch in reading:
            ranges = planned.popleft()
            if not wants_place:
                yield self.collate(batch)  # type: ignore[call-arg]
                continue
            numbers = np.concatenate([np.arange(first, end) for first, end in ranges])
            place = Place(epoch, numbers if reading.read is None else numbers[reading.read])
            yield self.collate(batch, place)  # type: ignore[call-arg]

    def _readers(self) -> list[GroupReader]:
        found = [source.reader() for source in self.sequence.sources]
        if any(not one.schema.equals(found[0].schema) for one in found):
            raise ConfigError("datasets", "their columns have different types", "columns of equal types")
        return found

    def __getstate__(self) -> dict[str, Any]:
        # a process that does not have this one's process group keeps its rank
        return {**self.__dict__, "_ranks": self.ranks}


def _shared(values: list[int]) -> torch.Tensor:
    """Returns a tensor [len(values)] in memory that worker processes share."""
    found: torch.Tensor = torch.tensor(values).share_memory_()  # type: ignore[no-untyped-call]
    return found
