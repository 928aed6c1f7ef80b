"""What a person sees while a run goes on, and how much memory it takes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

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
from pipeline.engine.ray.counter import _Counter

_WIDE = 120
"""Columns of a terminal that has room for a bar next to the figures."""


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
