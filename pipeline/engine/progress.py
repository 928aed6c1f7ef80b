"""The progress of a run: a bar on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO

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

from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.core.terminal import Console, count
from pipeline.telemetry import recording

_WIDE = 120
"""Fewest columns of a terminal with room for a bar next to the figures."""
_EVERY_S = 0.25
_LINE_EVERY_S = 30.0
"""Seconds between two lines where there is no terminal, such as the log of a job."""


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
    """Samples, rows, failed rows and rows per second: a bar, or lines where there is no terminal. A context manager.

    Args:
        samples: how many there are.
        terminal: where progress is shown. None: nowhere; only the time of the first row is recorded.
        read: returns the sums of `count_rows` so far. Called four times a second, in a thread.
    """

    def __init__(self, samples: int, terminal: TextIO | None, read: Callable[[], Sequence[int]]) -> None:
        self.samples, self.terminal, self.read = samples, terminal, read
        self.first_row_at: float | None = None
        """When the first row was finished, in seconds since the epoch."""
        self.rows = 0
        self._first_row_s = 0.0
        self._started = time.perf_counter()
        self._bar = _bar(terminal)
        self._has_lines = terminal is not None and self._bar.disable
        self._next_line_s = _LINE_EVERY_S
        self._reader = PeriodicTask(self._update, _EVERY_S, "tessera-progress", at_once=True)

    def __enter__(self) -> Progress:
        recording.begin_run(self.samples)
        self._bar.start()
        noun = "sample" if self.samples == 1 else "samples"
        fields: dict[str, Any] = {"noun": noun, "rows": count(0, "row"), "failed": 0, "speed": "–"}
        self._line = self._bar.add_task("extract", total=self.samples, **fields)
        self._reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()
        try:
            self._update()
        finally:
            self._bar.stop()
            recording.end_run()

    def _update(self) -> None:
        samples, rows, failed = self.read()
        self.rows = max(self.rows, rows)
        now = time.perf_counter() - self._started
        if rows and self.first_row_at is None:
            self.first_row_at, self._first_row_s = time.time(), now
        seconds = now - self._first_row_s
        speed = f"{rows / seconds:.0f}" if rows and seconds >= 1 else "–"
        self._bar.update(self._line, completed=samples, rows=count(rows, "row"), failed=failed, speed=speed)
        if self._has_lines and now >= self._next_line_s:
            self._next_line_s = now + _LINE_EVERY_S
            left_s = seconds * (self.samples - samples) / samples if rows and seconds >= 1 and samples else None
            left = "–" if left_s is None else str(timedelta(seconds=round(left_s)))
            noun = "sample" if self.samples == 1 else "samples"
            done = f"extract: {samples}/{self.samples} {noun} · {count(rows, 'row')} · {failed} failed"
            self.say(f"{done} · {speed} rows/s · left {left}")

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one. A terminal that is gone ends no run."""
        if self.terminal is not None:
            with suppress(OSError, ValueError):
                self._bar.console.print(line, soft_wrap=True)
                self.terminal.flush()


def _bar(terminal: TextIO | None) -> Bar:
    """Returns the bar of the terminal; it shows nothing if there is none."""
    console = Console(file=terminal)
    text = "{task.fields[noun]} · {task.fields[rows]} · {task.fields[failed]} failed · {task.fields[speed]} rows/s"
    columns: list[ProgressColumn] = [
        MofNCompleteColumn(),
        TextColumn(text),
        TextColumn("· left"),
        TimeRemainingColumn(),
    ]
    if console.width >= _WIDE:
        columns = [TextColumn("extract"), BarColumn(), *columns[:2], TimeElapsedColumn(), *columns[2:]]
    return Bar(*columns, console=console, disable=terminal is None or not console.is_terminal)
