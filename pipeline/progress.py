"""What a person sees while a run goes on, and how much memory it takes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from pipeline.core.errors import TesseraError
from pipeline.core.terminal import Console, count
from pipeline.trail import Notes

_MEMORY_EVERY_S = 5.0
_WIDE = 120
"""Columns of a terminal that has room for a bar next to the figures."""


@ray.remote(num_cpus=0)
class _Counter(Notes):
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


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Keeps what native libraries and Ray's core print off the terminal; gives the real stderr.

    Ray keeps the same lines in its own logs.
    """
    sys.stderr.flush()
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(real), "w") as terminal:
            yield terminal
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


class Progress:
    """A bar of samples done, with rows, failed rows and rows per second."""

    def __init__(self, samples: int, terminal: TextIO | None) -> None:
        self.samples, self.terminal = samples, terminal
        # where the driver is: a node that is lost takes no notes along; begun again, it has lost them
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor: Any = _Counter.options(scheduling_strategy=here, max_restarts=-1).remote()  # type: ignore[attr-defined]
        self.first_row_at: float | None = None
        """Of the clock that `time.time` reads."""
        self.rows = 0
        self.workers: dict[str, int] | None = None
        """The worker processes of the whole cluster, once the block ends: how many, and the sum of their peaks."""
        self._stop = threading.Event()
        self._started = time.perf_counter()

    @staticmethod
    def count(table: pa.Table) -> tuple[int, int, int]:
        """Samples finished, rows, rows with a failure, of a table of finished rows."""
        failed = pc.sum(pc.greater(pc.list_value_length(table["failures"]), 0)).as_py() or 0
        return pc.sum(table["final"]).as_py() or 0, len(table), failed

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        with suppress(Exception):  # as for the display
            self.workers = ray.get(self.actor.memory.remote(), timeout=5)
        ray.kill(self.actor)

    def cause(self) -> TesseraError | None:
        """Why the first worker broke that could tell."""
        try:
            return cast("TesseraError | None", ray.get(self.actor.why.remote(), timeout=5))
        except Exception:  # as for the display
            return None

    def _watch(self) -> None:
        console = Console(file=self.terminal)
        words = "{task.fields[noun]} · {task.fields[rows]} · {task.fields[failed]} failed · {task.fields[speed]} rows/s"
        columns: list[ProgressColumn] = [
            MofNCompleteColumn(),
            TextColumn(words),
            TextColumn("· left"),
            TimeRemainingColumn(),
        ]
        if console.width >= _WIDE:
            columns = [TextColumn("extract"), BarColumn(), *columns[:2], TimeElapsedColumn(), *columns[2:]]
        with Bar(*columns, console=console, disable=self.terminal is None or not console.is_terminal) as bar:
            noun = "sample" if self.samples == 1 else "samples"
            task = bar.add_task("extract", total=self.samples, noun=noun, rows=count(0, "row"), failed=0, speed="–")
            last, first_row_s = False, 0.0
            while True:
                samples, rows, failed = self._read()
                self.rows = max(self.rows, rows)
                now = time.perf_counter() - self._started
                if rows and self.first_row_at is None:
                    self.first_row_at, first_row_s = time.time(), now
                speed = f"{rows / (now - first_row_s):.0f}" if rows and now - first_row_s >= 1 else "–"
                bar.update(task, completed=samples, rows=count(rows, "row"), failed=failed, speed=speed)
                if last:
                    return
                last = self._stop.wait(0.25)

    def _read(self) -> list[int]:
        try:
            return list(ray.get(self.actor.read.remote(), timeout=5))
        except Exception:  # the display must never end a run
            return [0, 0, 0]


class MemoryMeter:
    """Peak of the memory of this process and its children (a local cluster is among them), in bytes.

    Shared memory (the object store) is counted once, as the largest share that any process maps.
    On a remote cluster it sees the driver only.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s, self.peak = every_s, 0
        self._stop = threading.Event()

    def __enter__(self) -> MemoryMeter:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._now())
            if self._stop.wait(self.every_s):
                return

    def _now(self) -> int:
        return memory_of_processes()


def memory_of_processes(others: Iterable[int] = ()) -> int:
    """Returns the bytes that this process and its children take, shared memory counted once.

    Args:
        others: processes of this one that are no children of it, and theirs.
    """
    own, shared = 0, 0
    found: dict[int, psutil.Process] = {}
    for pid in (os.getpid(), *others):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    for process in found.values():
        try:
            info = process.memory_info()
        except psutil.Error:
            continue
        own += info.rss - info.shared
        shared = max(shared, info.shared)
    return own + shared


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
