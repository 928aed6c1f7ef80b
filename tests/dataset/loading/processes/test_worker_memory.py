"""Workers that begin the same iteration find the same epoch, in any order; the next iteration has the next epoch."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import random
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.processes.worker_memory import Worker, WorkerMemory
from pipeline.dataset.loading.reading import ReadCounts


class Iterator:
    """An iterator of a ``DataLoader``: its worker processes begin its iterations one after the other, late or early."""

    def __init__(self, memory: WorkerMemory, workers: int, seed: int) -> None:
        self.workers: list[Any] = [SimpleNamespace(id=i, num_workers=workers, seed=seed + i) for i in range(workers)]
        self.memories = [copy.copy(memory) for _ in self.workers]
        """The same memory, in each process."""
        self.waiting = [0] * workers
        """Iterations that each worker has not begun."""
        self.epochs: list[tuple[int, int] | None] = []
        """Epoch and position of each worker, in the iteration that it has begun last."""

    def begin(self, rng: random.Random) -> None:
        """The trainer begins an iteration. It has waited until all workers had received the one before."""
        for worker, waiting in enumerate(self.waiting):
            for _ in range(waiting - 1):
                self.step([worker])
        self.waiting = [one + 1 for one in self.waiting]
        self.epochs = [None] * len(self.workers)
        self.step([0])
        for _ in range(rng.randrange(2 * len(self.workers))):
            self.step(rng.sample(range(len(self.workers)), rng.randint(1, len(self.workers))))

    def step(self, workers: list[int]) -> None:
        """Some workers begin an iteration at the same time."""
        workers = [worker for worker in workers if self.waiting[worker]]
        found = [self.memories[worker]._find(self.workers[worker]) for worker in workers]
        for worker, (epoch, generation) in zip(workers, found, strict=True):
            first, position, now = self.memories[worker]._begin.tolist()
            self.memories[worker]._write(self.workers[worker], epoch, generation)
            self.waiting[worker] -= 1
            if not self.waiting[worker]:
                self.epochs[worker] = (epoch, position if (epoch, generation) == (first, now) else 0)
        if 0 in workers and self.waiting[0]:
            self.step([0])  # the trainer waits for the first batch

    def finish(self) -> None:
        while any(self.waiting):
            self.step([worker for worker, waiting in enumerate(self.waiting) if waiting])


@pytest.mark.parametrize("same_seed", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_agree_in_any_order(persistent: bool, same_seed: bool) -> None:
    """Iterations that are read and others that are left, with and without epochs that the trainer sets."""
    rng = random.Random(0)
    for _ in range(60):
        memory, expected = WorkerMemory(3, 7), (3, 7)
        workers = rng.randint(1, 4)
        one = Iterator(memory, workers, 5)
        for number in range(rng.randint(1, 8)):
            if not persistent and number:
                one.finish()  # torch waits for the workers of an iterator
                workers = rng.randint(1, 4)
                one = Iterator(memory, workers, 5 if same_seed else number << 20)
                if same_seed and rng.random() < 0.5:
                    one = Iterator(memory, len(one.workers), 5)
            one.begin(rng)
            if rng.random() < 0.6:
                one.finish()
                assert one.epochs == [expected] * workers
            assert {found for found in one.epochs if found is not None} == {expected}
            assert memory.epoch == expected[0]
            assert memory.has_begun
            expected = (expected[0] + 1, 0)
            if rng.random() < 0.4:
                expected = (rng.randrange(9), rng.randrange(3))
                for _ in range(rng.randint(1, 2)):
                    memory.set_begin(*expected)
                assert memory.epoch == expected[0]


def worker(number: int, workers: int, seed: int) -> Worker:
    return SimpleNamespace(id=number, num_workers=workers, seed=seed + number)


def test_workers_that_resume() -> None:
    memory = WorkerMemory(0, 0)
    processes = [copy.copy(memory) for _ in range(2)]
    for number, process in enumerate(processes):
        process.resume_worker(worker(number, 2, 5), 4)
    assert memory.epoch == 4
    assert [process.begin_worker(worker(i, 2, 5)) for i, process in enumerate(processes)] == [(5, 0)] * 2
    assert [copy.copy(memory).begin_worker(worker(i, 2, 9)) for i in range(2)] == [(6, 0)] * 2


@pytest.mark.parametrize("epoch", [0, 1 << 40])
def test_an_entry_holds_large_epochs(epoch: int) -> None:
    memory = WorkerMemory(epoch, 0)
    assert copy.copy(memory).begin_worker(worker(1023, 1024, (1 << 63) - 1024)) == (epoch, 0)
    assert memory.epoch == epoch


def test_counts_are_those_of_the_last_iteration() -> None:
    memory = WorkerMemory(0, 0)
    first, second = copy.copy(memory), copy.copy(memory)
    first.begin_worker(worker(0, 2, 5))
    second.begin_worker(worker(1, 2, 5))
    first.publish(0, ReadCounts(1, 2, 3))
    second.publish(1, ReadCounts(10, 20, 30))
    assert memory.counts() == ReadCounts(11, 22, 33)
    memory.set_begin(1, 0)  # the trainer has read all
    assert memory.counts() == ReadCounts(11, 22, 33)
    first.begin_worker(worker(0, 2, 5))
    assert memory.counts() == ReadCounts()
    first.publish(0, ReadCounts(1, 0, 0))
    assert memory.counts() == ReadCounts(1, 0, 0)
    memory.clear_counts()
    assert memory.counts() == ReadCounts()


def test_a_copy_has_memory_of_its_own() -> None:
    memory = WorkerMemory(2, 1)
    copied = pickle.loads(pickle.dumps(memory))
    copied.set_begin(5, 0)
    assert (memory.begin, copied.begin) == ((2, 1), (5, 0))


def test_a_worker_of_another_process_than_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that got a reader from the process that started them would share its memory."""
    memory = WorkerMemory(0, 0)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=memory._owner + 1))
    with pytest.raises(ConfigError, match=r"made in another process .* call its set_epoch"):
        copy.copy(memory).begin_worker(worker(0, 1, 5))
    monkeypatch.setattr("os.getpid", lambda: memory._owner + 1)
    process = copy.copy(memory)
    process.set_begin(0, 0)
    assert process.begin_worker(worker(0, 1, 5)) == (0, 0)
    assert not memory.has_begun
