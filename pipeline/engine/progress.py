"""The progress bar of a run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from pipeline.core.terminal import Console, count

_WIDE = 120
"""Fewest columns of a terminal with room for a bar next to the figures."""
_EVERY_S = 0.25


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Hides what native libraries and Ray's core print to stderr; yields the real stderr.

    Ray keeps the same lines in its own logs.
    """
    sys.stderr.flush()
    real = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        with os.fdopen(os.dup(real), "w") as terminal:
            yield terminal
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        os.close(real)
        os.close(devnull)


def count_rows(table: pa.Table) -> tuple[int, int, int]:
    """Returns (samples finished, rows, rows with a failure) of a table of finished rows."""
    failed = pc.sum(pc.greater(pc.list_value_length(table["failures"]), 0)).as_py() or 0
    return pc.sum(table["final"]).as_py() or 0, len(table), failed


class Progress:
    """A progress bar of samples, with rows, failed rows and rows per second. A context manager.

    Args:
        samples: how many there are.
        terminal: where the bar is shown. None: nowhere; only the time of the first row is recorded.
        read: returns the sums of `count_rows` so far. Called four times a second, in a thread.
    """

    def __init__(self, samples: int, terminal: TextIO | None, read: Callable[[], Sequence[int]]) -> None:
        self.samples, self.terminal, self.read = samples, terminal, read
        self.first_row_at: float | None = None
        """When the first row was finished, in seconds since the epoch."""
        self.rows = 0
        self._stop = threading.Event()
        self._started = time.perf_counter()

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        console = Console(file=self.terminal)
        text = "{task.fields[noun]} · {task.fields[rows]} · {task.fields[failed]} failed · {task.fields[speed]} rows/s"
        columns: list[ProgressColumn] = [
            MofNCompleteColumn(),
            TextColumn(text),
            TextColumn("· left"),
            TimeRemainingColumn(),
        ]
        if console.width >= _WIDE:
            columns = [TextColumn("extract"), BarColumn(), *columns[:2], TimeElapsedColumn(), *columns[2:]]
        with Bar(*columns, console=console, disable=self.terminal is None or not console.is_terminal) as bar:
            noun = "sample" if self.samples == 1 else "samples"
            task = bar.add_task("extract", total=self.samples, noun=noun, rows=count(0, "row"), failed=0, speed="–")
            is_last, first_row_s = False, 0.0
            while True:
                samples, rows, failed = self.read()
                self.rows = max(self.rows, rows)
                now = time.perf_counter() - self._started
                if rows and self.first_row_at is None:
                    self.first_row_at, first_row_s = time.time(), now
                speed = f"{rows / (now - first_row_s):.0f}" if rows and now - first_row_s >= 1 else "–"
                bar.update(task, completed=samples, rows=count(rows, "row"), failed=failed, speed=speed)
                if is_last:
                    return
                is_last = self._stop.wait(_EVERY_S)
