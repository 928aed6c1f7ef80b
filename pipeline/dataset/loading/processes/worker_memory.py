"""Memory that a trainer shares with its worker processes: which epoch they read, and what they have read.

This module imports torch.
"""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Iterator
from dataclasses import astuple, fields
from typing import Any, NamedTuple, Protocol

import torch

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.reading import ReadCounts

_MAX_WORKERS = 1024
_EPOCH_BITS, _NUMBER_BITS, _GENERATION_BITS, _KEY_BITS = 41, 2, 1, 19


class Worker(Protocol):
    """What `torch.utils.data.get_worker_info` returns."""

    id: int
    num_workers: int
    seed: int


class _Entry(NamedTuple):
    """The iteration that a worker process has begun last. One number, so that it is written as a whole."""

    key: int
    """Of the iterator: made of its seed and number of workers."""
    number: int
    """Of the iteration: persistent workers begin several with one iterator. The last bits only."""
    generation: int
    """Changes when the trainer sets where to begin, so that entries of before do not count."""
    epoch: int

    def packed(self) -> int:
        high = (self.key << _GENERATION_BITS | self.generation) << _NUMBER_BITS | self.number % (1 << _NUMBER_BITS)
        return high << _EPOCH_BITS | self.epoch + 1

    @classmethod
    def of(cls, packed: int) -> _Entry:
        high, epoch = packed >> _EPOCH_BITS, packed % (1 << _EPOCH_BITS)
        rest = high >> _NUMBER_BITS
        return cls(rest >> _GENERATION_BITS, high % (1 << _NUMBER_BITS), rest % (1 << _GENERATION_BITS), epoch - 1)

    def after(self, number: int) -> int:
        """Returns by how many iterations this one is later than iteration ``number`` of the same iterator: -2 to 1.

        No worker is further ahead: an iterator begins the next iteration when all workers have received this one.
        """
        return (self.number - number + 2) % (1 << _NUMBER_BITS) - 2


class WorkerMemory:
    """Shared memory of a trainer and its worker processes. Picklable; only torch's processes get the same memory.

    The epoch advances when an iteration begins, whatever was read of the one before. The trainer does not see that a
    ``DataLoader`` begins one. So each worker finds the epoch of the others that have begun it, or else the next epoch.
    There is no lock: workers that begin at the same time find the same epoch.

    Two iterators have different seeds: torch draws one when it makes an iterator. If the user sets the seed before each
    iterator, a worker's own entry is of the iterator before. (Unless torch has ended that worker before it began, 5
    seconds after the iterator was left.)

    Args:
        epoch: the first one.
        position: batches of it that were read before.
    """

    def __init__(self, epoch: int, position: int) -> None:
        self._begin = _shared(torch.tensor([epoch, position, 0]))
        """Where the next iteration begins, and the generation."""
        self._entries = _shared(torch.zeros(_MAX_WORKERS, dtype=torch.int64))
        self._counts = _shared(torch.zeros(_MAX_WORKERS, len(fields(ReadCounts)), dtype=torch.int64))
        self._owner = os.getpid()
        self._iterations = 0
        """In a worker process: the iterations that it has begun."""

    @property
    def begin(self) -> tuple[int, int]:
        """Epoch and position that were set last."""
        epoch, position, _ = self._begin.tolist()
        return epoch, position

    @property
    def epoch(self) -> int:
        """The largest epoch that a worker has begun since it was set, or the one that was set."""
        return max((one.epoch for one in self._begun().values()), default=self.begin[0])

    @property
    def has_begun(self) -> bool:
        """Whether a worker has begun an iteration since the epoch was set."""
        return bool(self._begun())

    def set_begin(self, epoch: int, position: int) -> None:
        """Sets where the next iteration begins. Called in the trainer's process."""
        if os.getpid() != self._owner:  # a rank of its own
            self._share()
        begun = self._begun()
        if begun:
            for worker, _ in self._all():
                if worker not in begun:
                    self._entries[worker] = 0
        self._begin[0], self._begin[1] = epoch, position
        if begun:  # the entries stay, for a worker that has not yet begun an iteration that the trainer has left
            self._begin[2] ^= 1

    def begin_worker(self, worker: Worker) -> tuple[int, int]:
        """Returns epoch and position at which a worker process begins its next iteration. Called in that process."""
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != self._owner:
            raise ConfigError(
                "the reader",
                "was made in another process than that of the loader",
                "call its set_epoch before the first iteration, or use reader.loader()",
            )
        epoch, generation = self._find(worker)
        self._write(worker, epoch, generation)
        first, position, now = self._begin.tolist()
        return epoch, position if (epoch, generation) == (first, now) else 0

    def resume_worker(self, worker: Worker, epoch: int) -> None:
        """Sets the epoch of a worker process that begins with a state. Called in that process."""
        self._write(worker, epoch, int(self._begin[2]))

    def publish(self, worker: int, counts: ReadCounts) -> None:
        """Stores what a worker process has read in its current iteration."""
        self._counts[worker] = torch.tensor(astuple(counts))

    def counts(self) -> ReadCounts:
        """Returns what the workers have read in the last iteration that any of them has begun."""
        entries = self._begun() or dict(self._all())
        last = max((one.epoch for one in entries.values()), default=0)
        workers = [worker for worker, one in entries.items() if one.epoch == last]
        return ReadCounts(*self._counts[workers].sum(0).tolist())

    def clear_counts(self) -> None:
        """Forgets what the workers have read."""
        self._counts.zero_()

    def _find(self, worker: Worker) -> tuple[int, int]:
        """Returns the epoch of a worker's next iteration, and its generation."""
        number, generation, key = self._iterations, int(self._begin[2]), _key(worker)
        entries = dict(self._all())
        same = [one for id, one in entries.items() if one.key == key and id < worker.num_workers]
        own = entries.get(worker.id)
        if number == 0 and own is not None and own.key == key:  # of an iterator before, with the same seed
            if own.generation == generation:
                return own.epoch + 1, generation
            same = [one for one in same if one.generation == generation]
        for ahead in (0, 1):  # 1: the trainer has left this iteration and has begun another one
            for one in same:
                if one.after(number) == ahead:
                    return max(0, one.epoch - ahead), one.generation
        begun = [one.epoch for one in entries.values() if one.generation == generation]
        return max(begun) + 1 if begun else int(self._begin[0]), generation

    def _write(self, worker: Worker, epoch: int, generation: int) -> None:
        self._counts[worker.id] = 0
        self._entries[worker.id] = _Entry(_key(worker), self._iterations, generation, epoch).packed()
        if not self._iterations:  # of an earlier iterator with more workers
            self._entries[worker.num_workers :] = 0
        self._iterations += 1

    def _begun(self) -> dict[int, _Entry]:
        generation = int(self._begin[2])
        return {worker: one for worker, one in self._all() if one.generation == generation}

    def _all(self) -> Iterator[tuple[int, _Entry]]:
        return ((worker, _Entry.of(packed)) for worker, packed in enumerate(self._entries.tolist()) if packed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        is_shared: bool = self._begin.is_shared()  # type: ignore[no-untyped-call]  # untyped in torch
        if not is_shared:  # copied, instead of passed to a process of torch's
            self._share()

    def _share(self) -> None:
        """Makes the memory one of this process and its workers only."""
        self._owner = os.getpid()
        self._begin, self._entries, self._counts = (
            _shared(one.clone()) for one in (self._begin, self._entries, self._counts)
        )


def _key(worker: Worker) -> int:
    text = f"{worker.seed - worker.id} {worker.num_workers}"
    return zlib.crc32(text.encode()) % (1 << _KEY_BITS)


def _shared(values: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = values.share_memory_()  # type: ignore[no-untyped-call]  # untyped in torch
    return found
