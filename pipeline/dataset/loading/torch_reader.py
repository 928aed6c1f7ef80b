"""Batches of a dataset as a `torch.utils.data.IterableDataset`, in an order that any number of ranks and workers share.

This module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import state as states
from pipeline.dataset.loading.place import PlacedCollate
from pipeline.dataset.loading.processes.rank_comparison import compare_ranks
from pipeline.dataset.loading.processes.share import Share, read_share
from pipeline.dataset.loading.processes.worker_memory import Worker, WorkerMemory
from pipeline.dataset.loading.processes.worker_state import WorkerState, load_worker
from pipeline.dataset.loading.ranks import resolve_ranks
from pipeline.dataset.loading.reading import ReadCounts
from pipeline.dataset.loading.sequence import Sequence

if TYPE_CHECKING:
    from pipeline.dataset.loading.loader import Loader


class TorchReader(IterableDataset[Any]):
    """Batches of a dataset or of a mixture. `Dataset.to_torch` and `dataset.mix` make it. Picklable.

    Iterate it, or `loader` for worker processes. Each iteration is an epoch. `state_dict` is what a checkpoint stores;
    it is the same on all ranks.
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
        resolve_ranks(rank, world_size)
        _ = sequence.shape  # both raise for wrong arguments
        self.sequence, self.collate = sequence, collate
        self._counts, self._is_compared = ReadCounts(), False
        """What this process has read in the last iteration; whether the other ranks are known to read the same."""
        self._given, self._threads = (rank, world_size), threads
        self._ranks_before = (0, 1)
        """Those of the process that pickled this object, for a process without a process group."""
        self._memory = WorkerMemory(epoch, 0)
        self._handed, self._is_loaded = 0, False
        """Batches that the trainer was given since the beginning; whether `load_state_dict` set that."""
        self._has_counted_workers = False
        """Whether the workers of this iteration are those of a `Loader`, which counts their batches."""
        self._worker_state: WorkerState | None = None
        """In a worker process: how far it has read."""
        self._resumed: WorkerState | None = None
        """In a worker process: the loaded state with which the next iteration begins."""

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, or of the next one if none has begun."""
        return self._memory.epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration read ``epoch`` from its first batch, or from a loaded position of it."""
        if not 0 <= epoch <= states.MAX_EPOCH:
            raise ConfigError("epoch", f"found {epoch}", f"0 to {states.MAX_EPOCH}")
        if not self._is_loaded or self._memory.has_begun or epoch != self.epoch:
            self._set_begin(epoch, 0)

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch that is read from its first batch on."""
        return self.sequence.deal(0, self.ranks[1]).rounds

    @property
    def remaining(self) -> int:
        """Number of batches of this rank that the epoch still has: fewer than ``len`` if a state was loaded."""
        self._check_counts()
        return self.sequence.deal(self._memory.begin[1], self.ranks[1]).rounds - self._handed

    @property
    def ranks(self) -> tuple[int, int]:
        """The rank of this process, and the number of ranks."""
        return resolve_ranks(*self._given, self._ranks_before)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self._trainer_batches() if worker is None else self._worker_batches(worker)

    def _trainer_batches(self) -> Iterator[Any]:
        self.begin_iteration()
        epoch, position = self._memory.begin
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
            here = self._worker_state or WorkerState(*self._memory.begin)
            of_worker = here.save(self.ranks[1], worker.num_workers)
            return {**states.save(self.sequence, here.epoch, here.position), "worker": of_worker}
        self._check_counts()
        epoch, start = self._memory.begin
        deal = self.sequence.deal(start, self.ranks[1])
        if self._handed and self._handed >= deal.rounds:
            return states.save(self.sequence, epoch + 1, 0)
        return states.save(self.sequence, epoch, deal.end(self._handed))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration begin after the batches of a state, on any number of ranks and workers.

        Raises:
            ConfigError: not a state, a state of other settings, or a snapshot that is gone.
        """
        sequence, epoch, position = states.load(self.sequence, state)
        worker = get_worker_info()
        if worker is not None:
            self._resumed = load_worker(state, epoch, position, self.ranks[1], worker.num_workers)
            self.sequence, self._worker_state = sequence, self._resumed
            return
        if "worker" in state:
            raise ConfigError("the state of the reader", "is that of a worker process", "the state of a loader")
        self.sequence = sequence
        self._set_begin(epoch, position)
        self._is_loaded, self._is_compared = True, False

    @property
    def counts(self) -> ReadCounts:
        """What this process or its workers have read in the last iteration, with what workers have read ahead."""
        of_workers = self._memory.counts()
        if self._memory.has_begun:
            return of_workers
        return ReadCounts(*map(sum, zip(astuple(self._counts), astuple(of_workers), strict=True)))

    def report(self) -> dict[str, int]:
        """Returns numbers of rows.

        - ``rows``: of the current epoch; ``repeated`` and ``dropped``: those that its last round repeats and leaves
          out. These are of all ranks together.
        - ``unreadable``: of shards that could not be opened; ``lost``: others that this rank could not read in the last
          iteration.
        """
        deal = self.sequence.deal(self._memory.begin[1], self.ranks[1])
        return {
            "rows": deal.rows,
            "repeated": deal.repeated_rows,
            "dropped": deal.left_rows if deal.tail == "drop" else 0,
            "unreadable": sum(source.index.lost_rows for source in self.sequence.sources),
            "lost": self.counts.lost,
        }

    def begin_iteration(self, with_workers: bool = False) -> None:
        """Goes on to the next epoch if this one has begun. Called in the trainer's process only.

        Raises ``ConfigError`` if another rank reads other rows: the first time and after a state. It waits for no rank.
        """
        begin, epoch = self._memory.begin, self.epoch
        self._set_begin(*((epoch + 1, 0) if self._handed or epoch > begin[0] else begin))
        self._counts, self._has_counted_workers = ReadCounts(), with_workers
        self._memory.clear_counts()
        if not self._is_compared:
            compare_ranks(self.sequence, self.ranks[1], *self._memory.begin)
            self._is_compared = True

    def hand_out(self) -> None:
        """Counts a batch that the trainer is given."""
        self._handed += 1

    def end_iteration(self) -> None:
        """Sets the next iteration to the next epoch."""
        self._set_begin(self._memory.begin[0] + 1, 0)

    def _set_begin(self, epoch: int, position: int) -> None:
        self._memory.set_begin(epoch, position)
        self._handed, self._is_loaded, self._has_counted_workers = 0, False, False

    def _check_counts(self) -> None:
        """Raises ``ConfigError`` in the trainer's process if it does not know how many batches it was given."""
        is_counted = self._has_counted_workers and self.epoch == self._memory.begin[0]
        if self._memory.has_begun and not is_counted and get_worker_info() is None:
            raise ConfigError(
                "the reader",
                "is read by workers of another loader, whose batches this process does not count",
                "use reader.loader(), or torchdata's StatefulDataLoader and its state",
            )

    def _worker_batches(self, worker: Worker) -> Iterator[Any]:
        """Returns the batches of a worker process."""
        state, self._resumed = self._resumed, None
        if state is None:
            state = WorkerState(*self._memory.begin_worker(worker))
        else:
            self._memory.resume_worker(worker, state.epoch)
        self._worker_state = state
        return self._counted_batches(worker, state)

    def _counted_batches(self, worker: Worker, state: WorkerState) -> Iterator[Any]:
        for batch in self._batches(state.epoch, state.position, worker.id, worker.num_workers, state.batches):
            state.batches += 1
            self._memory.publish(worker.id, self._counts)
            yield batch

    def _batches(self, epoch: int, start: int, worker: int, workers: int, done: int = 0) -> Iterator[Any]:
        """Returns the batches of one process, without the first ``done``."""
        share = Share(epoch, start, *self.ranks, worker, workers, done)
        self._counts, batches = read_share(self.sequence, self.collate, share, self._threads)
        return batches

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ranks_before": self.ranks, "_is_compared": False}
