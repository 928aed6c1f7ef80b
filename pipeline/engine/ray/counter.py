"""The run's counter: an actor that all workers report to."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ray

from pipeline.core.errors import TesseraError
from pipeline.engine.memory import memory_of_processes
from pipeline.engine.ray.crash_journal import CrashJournal

_MEMORY_EVERY_S = 5.0


@ray.remote(num_cpus=0)
class _Counter(CrashJournal):
    """Counts what the encoders have finished, keeps what they are at, and why a worker broke, which Ray tells in its
    own words only.

    Losing it costs the display and blame, never a row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0, 0, 0]
        self.cause: TesseraError | None = None
        self.peaks: dict[str, int] = {}
        """Bytes that each worker process takes with its children, at most."""

    def add(self, samples: int, rows: int, failed: int) -> None:
        for i, more in enumerate((samples, rows, failed)):
            self.counts[i] += more

    def read(self) -> list[int]:
        return self.counts

    def takes(self, worker: str, size: int) -> None:
        """A worker's memory at this moment, in bytes."""
        self.peaks[worker] = max(size, self.peaks.get(worker, 0))

    def memory(self) -> dict[str, int]:
        return {"processes": len(self.peaks), "peak_memory_bytes": sum(self.peaks.values())}

    def broke(self, cause: TesseraError) -> None:
        self.cause = self.cause or cause

    def why(self) -> TesseraError | None:
        return self.cause


class WorkerMemory:
    """Reports the memory of a worker process and its children to the run's counter, every few seconds of work."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.worker = ray.get_runtime_context().get_worker_id()
        self._next = 0.0

    def report(self, others: Iterable[int] = ()) -> None:
        """After a block. ``others``: the worker's processes that are no children of it."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _MEMORY_EVERY_S
            self.counter.takes.remote(self.worker, memory_of_processes(others))
