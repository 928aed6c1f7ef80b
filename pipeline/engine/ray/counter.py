"""The counter of a run: an actor that all workers report to and the driver reads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.errors import TesseraError
from pipeline.engine.memory import memory_of_processes
from pipeline.engine.ray.crash_journal import CrashJournal

_MEMORY_EVERY_S = 5.0
_ANSWER_S = 5.0


@ray.remote(num_cpus=0)
class _CounterActor(CrashJournal):
    """Counts finished rows and keeps the crash journal, the workers' memory and the first error of a worker.

    Ray reports that error only inside messages of its own. If the actor is lost, so are progress and crash records, but
    no rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0, 0, 0]
        self.cause: TesseraError | None = None
        self.peaks: dict[str, int] = {}
        """Worker -> peak memory of its processes, in bytes."""

    def add(self, samples: int, rows: int, failed: int) -> None:
        for i, more in enumerate((samples, rows, failed)):
            self.counts[i] += more

    def read(self) -> list[int]:
        return self.counts

    def record_memory(self, worker: str, size: int) -> None:
        """Records the current memory of a worker, in bytes."""
        self.peaks[worker] = max(size, self.peaks.get(worker, 0))

    def memory(self) -> dict[str, int]:
        """Returns the number of workers, and the sum of their peaks in bytes."""
        return {"processes": len(self.peaks), "peak_memory_bytes": sum(self.peaks.values())}

    def record_error(self, cause: TesseraError) -> None:
        """Records the error of a worker. Only the first one is kept."""
        self.cause = self.cause or cause

    def first_error(self) -> TesseraError | None:
        return self.cause


class RunCounter:
    """The driver's client of the counter. If the actor does not answer, progress is not shown, and the run goes on."""

    def __init__(self) -> None:
        # on the driver's node, so that a lost node does not take the journal with it. After a restart it is empty
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor: Any = _CounterActor.options(scheduling_strategy=here, max_restarts=-1).remote()  # type: ignore[attr-defined]  # Ray has no types
        self.workers: dict[str, int] | None = None
        """After `close`: number of worker processes in the cluster, and the sum of their memory peaks in bytes."""

    def read(self) -> list[int]:
        """Returns the sums of `progress.count_rows` over all workers."""
        with suppress(Exception):
            return list(ray.get(self.actor.read.remote(), timeout=_ANSWER_S))
        return [0, 0, 0]

    def cause(self) -> TesseraError | None:
        """Returns the first error that a worker reported."""
        with suppress(Exception):
            return cast("TesseraError | None", ray.get(self.actor.first_error.remote(), timeout=_ANSWER_S))
        return None

    def close(self) -> None:
        """Reads the memory of the workers, and ends the actor."""
        with suppress(Exception):
            self.workers = ray.get(self.actor.memory.remote(), timeout=_ANSWER_S)
        ray.kill(self.actor)


class WorkerMemory:
    """Reports the memory of a worker process and its children to the run's counter, every few seconds of work."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.worker = ray.get_runtime_context().get_worker_id()
        self._next = 0.0

    def report(self, others: Iterable[int] = ()) -> None:
        """Call it after each block. ``others``: ids of further processes of the worker that are not its children."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _MEMORY_EVERY_S
            self.counter.record_memory.remote(self.worker, memory_of_processes(others))
