"""The values of this process's metrics, passed to the recorders that export them.

Without a recorder nothing is counted, and a call costs nothing. Gauges are kept in any case, so that a recorder which
is added later has them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

import pyarrow as pa

from pipeline.telemetry import metrics, table_counts
from pipeline.telemetry.metrics import Metric

NightStatus = Literal["complete", "partial", "failed"]
Labels = tuple[str, ...]
Value = tuple[Metric, Labels, float]


class Recorder(Protocol):
    """Exports metrics. Its methods are called by several threads."""

    def add(self, metric: Metric, labels: Labels, value: float) -> None:
        """Adds a positive value to a counter."""
        ...

    def set(self, metric: Metric, labels: Labels, value: float) -> None:
        """Sets a gauge."""
        ...


class _Values:
    """The recorders and the gauges of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recorders: tuple[Recorder, ...] = ()
        self.gauges: dict[tuple[Metric, Labels], float] = {}
        self.watched: tuple[Callable[[], Iterable[Value]], ...] = ()


_values = _Values()


def use(recorder: Recorder) -> None:
    """Adds a recorder, and passes the gauges of this process to it."""
    with _values.lock:
        if recorder not in _values.recorders:
            _values.recorders += (recorder,)
        known = list(_values.gauges.items())
    for (metric, labels), value in known:
        recorder.set(metric, labels, value)


def remove(recorder: Recorder) -> None:
    """Removes a recorder, if it was added."""
    with _values.lock:
        _values.recorders = tuple(one for one in _values.recorders if one is not recorder)


def set_gauge(metric: Metric, value: float, *labels: str) -> None:
    """Sets a gauge."""
    labels = metric.closed(labels)
    with _values.lock:
        _values.gauges[metric, labels] = value
        recorders = _values.recorders
    for recorder in recorders:
        recorder.set(metric, labels, value)


def watch(read: Callable[[], Iterable[Value]]) -> None:
    """Has gauges read whenever they are exported, until the stages of the run end."""
    with _values.lock:
        _values.watched += (read,)


def refresh() -> None:
    """Reads the gauges that are watched. An exporter calls it before it exports."""
    for read in _values.watched:
        for metric, labels, value in read():
            set_gauge(metric, value, *labels)


def increments(table: pa.Table) -> list[table_counts.Increment]:
    """Returns what a table of finished rows adds to the metrics; nothing without a recorder."""
    return list(table_counts.of_table(table)) if _values.recorders else []


def add(increments: Iterable[table_counts.Increment]) -> None:
    """Adds increments to counters."""
    for metric, labels, value in increments:
        for recorder in _values.recorders:
            recorder.add(metric, metric.closed(labels), value)


def count_table(table: pa.Table) -> None:
    """Counts a table of finished rows."""
    add(increments(table))


def count_files(shards: Sequence[dict[str, Any]], failure_shards: Sequence[dict[str, Any]], seconds: float) -> None:
    """Counts files that were published.

    Args:
        shards: files of rows, as plain values with ``bytes``.
        failure_shards: files of failures.
        seconds: what writing took since the last call, with or without a file.
    """
    if _values.recorders:
        add(_files(shards, failure_shards, seconds))


def _files(
    shards: Sequence[dict[str, Any]], failure_shards: Sequence[dict[str, Any]], seconds: float
) -> Iterator[table_counts.Increment]:
    size = sum(int(one["bytes"]) for one in (*shards, *failure_shards))
    found = ((metrics.SHARDS, len(shards)), (metrics.WRITTEN_BYTES, size), (metrics.WRITE_S, seconds))
    yield from ((metric, (), float(value)) for metric, value in found if value > 0)


def begin_run(samples: int) -> None:
    """Records that the stages of a run begin, for so many samples."""
    set_gauge(metrics.SAMPLES_PLANNED, samples)
    set_gauge(metrics.RUN_START, time.time())
    set_gauge(metrics.RUN_ACTIVE, 1)


def end_run() -> None:
    """Records that the stages have ended, well or not. Queues are empty then."""
    with _values.lock:
        _values.watched = ()
        queues = [labels for metric, labels in _values.gauges if metric is metrics.QUEUE]
    for labels in queues:
        set_gauge(metrics.QUEUE, 0, *labels)
    set_gauge(metrics.RUN_ACTIVE, 0)
    set_gauge(metrics.RUN_END, time.time())


def record_lag(samples: int, oldest_age_s: float | None) -> None:
    """Records how far the dataset is behind its corpus.

    Args:
        samples: number of samples that are listed and not live.
        oldest_age_s: age of the oldest of them in seconds. None: there is none, or it is not known.
    """
    set_gauge(metrics.LAG_SAMPLES, samples)
    set_gauge(metrics.LAG_AGE, oldest_age_s or 0.0)


def record_night(status: NightStatus, exit_code: int, ended: float | None = None) -> None:
    """Records the end of a night.

    Args:
        status: ``partial``: its deadline left samples for the next one, which is no failure, whatever its exit code.
        exit_code: exit code of the command.
        ended: seconds since the epoch. None: now.
    """
    ended = time.time() if ended is None else ended
    set_gauge(metrics.NIGHT_EXIT, exit_code)
    set_gauge(metrics.NIGHT_END, ended)
    set_gauge(metrics.NIGHT_FAILURE if status == "failed" else metrics.NIGHT_SUCCESS, ended)
    if status == "complete":
        set_gauge(metrics.NIGHT_COMPLETE, ended)
