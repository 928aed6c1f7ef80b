"""Batches of a dataset as a `torch.utils.data.IterableDataset`, in an order that any number of ranks and workers share.

This module imports torch.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import state as states
from pipeline.dataset.loading.decoded import GroupReader
from pipeline.dataset.loading.order.deal import Range
from pipeline.dataset.loading.order.epoch import Rows
from pipeline.dataset.loading.place import PlacedCollate, collated
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
        self._given, self._threads = (rank, world_size), threads
        self._ranks_before = (0, 1)
        """Those of the process that pickled this object, for a process without a process group."""
        self._owner = os.getpid()
        self._begin: torch.Tensor = _shared([epoch, 0])
        """Epoch and position at which the next iteration begins. Worker processes read it then."""
        self._finished: torch.Tensor = _shared([0] * _MAX_WORKERS)
        """For each worker process, the epoch after the one that it has read to the end."""
        self._handed, self._is_loaded = 0, False
        """Batches that the trainer's process was given since ``_begin``; whether `load_state_dict` set ``_begin``."""
        self._worker_state: dict[str, int] | None = None
        """In a worker process: epoch, position at its beginning, and batches of this process since."""
        self._resumed: dict[str, int] | None = None
        """In a worker process: such a state that was loaded, and with which the next iteration begins."""

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, or of the next one if none has begun."""
        return int(self._begin[0])

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration read ``epoch``, from its first batch. A loaded state of that epoch keeps its
        position."""
        if not 0 <= epoch <= states.MAX_EPOCH:
            raise ConfigError("epoch", f"found {epoch}", f"0 to {states.MAX_EPOCH}")
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
        return resolve_ranks(*self._given, self._ranks_before)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self._trainer_batches() if worker is None else self._worker_batches(worker.id, worker.num_workers)

    def _trainer_batches(self) -> Iterator[Any]:
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
        worker = get_worker_info()
        if worker is not None:
            here = self._worker_state or self._next_state(worker.num_workers)
            return {**states.save(self.sequence, here["epoch"], here["position"]), "worker": dict(here)}
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
        batches = states.worker_batches(state)
        if get_worker_info() is not None:
            self._resumed = {"epoch": epoch, "position": position, "batches": batches}
            self._worker_state = dict(self._resumed)
            return
        if "worker" in state:
            raise ConfigError("the state of the reader", "is that of a worker process", "the state of a loader")
        self._set_begin(epoch, position)
        self._is_loaded = True

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
        self._set_begin(*((self.epoch + 1, 0) if self._handed else self._begin.tolist()))

    def hand_out(self) -> None:
        """Counts a batch that the trainer is given."""
        self._handed += 1

    def end_iteration(self) -> None:
        """Sets the next iteration to the next epoch."""
        self._set_begin(self.epoch + 1, 0)

    def _set_begin(self, epoch: int, position: int) -> None:
        if os.getpid() != self._owner:  # a rank of its own
            self._share()
        self._begin[0], self._begin[1] = epoch, position
        self._handed, self._is_loaded = 0, False
        self._finished.zero_()

    def _worker_batches(self, worker: int, workers: int) -> Iterator[Any]:
        """Returns the batches of a worker process."""
        state = self._worker_state = self._resumed or self._next_state(workers)
        self._resumed = None

        def batches() -> Iterator[Any]:
            for batch in self._batches(state["epoch"], state["position"], worker, workers, state["batches"]):
                state["batches"] += 1
                yield batch
            self._finished[worker] = state["epoch"] + 1

        return batches()

    def _next_state(self, workers: int) -> dict[str, int]:
        """Returns where a worker process begins. The processes go on to the next epoch when all have read one."""
        (epoch, position), finished = self._begin.tolist(), int(self._finished[:workers].min())
        return {"epoch": max(epoch, finished), "position": 0 if finished > epoch else position, "batches": 0}

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
        return collated(reading, self.collate, epoch, planned)

    def _readers(self) -> list[GroupReader]:
        found = [source.reader() for source in self.sequence.sources]
        if any(not one.schema.equals(found[0].schema) for one in found):
            raise ConfigError("datasets", "their columns have different types", "columns of equal types")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ranks_before": self.ranks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._begin.is_shared():  # type: ignore[no-untyped-call]  # not passed to a process of torch's, but copied
            self._share()

    def _share(self) -> None:
        """Makes the shared memory one of this process and its workers only."""
        self._owner = os.getpid()
        self._begin, self._finished = _shared(self._begin.tolist()), _shared(self._finished.tolist())


def _shared(values: list[int]) -> torch.Tensor:
    """Returns a tensor [len(values)] in memory that worker processes share."""
    found: torch.Tensor = torch.tensor(values).share_memory_()  # type: ignore[no-untyped-call]
    return found
