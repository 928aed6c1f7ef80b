"""Runs a stage in a worker process. After an exit of the worker it retries, and blames a task if it must."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.core.errors import TesseraError
from pipeline.core.system.read_write_lock import ReadWriteLock
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.process import AnyProcess, ProcessOptions, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import WHOLE_FILE, Reason, TaskKey, TaskPolicy
from pipeline.sandbox.worker import Stage
from pipeline.sandbox.worker_exit import WorkerExit

_EXITS_TO_BLAME = 2
_EXITS_WITHOUT_TASK = 3
_FILE_STRIKES = 3
_MAX_REMEMBERED = 256
_CAUTIOUS_ROWS, _PART_S, _MIN_PART, _MAX_PART = 512, 0.025, 8, 32
"""After an exit so many rows are mapped in parts that take about so many seconds, with at least and at most so many
rows. A part costs a millisecond, and each file of several windows is opened again; an exit costs the rows before it in
its part."""
_DEVICE_FAILURES, _DEVICE_FAILURES_AT_FIRST = 9, 2
"""Most failures of a device without a success between them: two for each of four rows, one for their block; and before
any success."""
NO_LIMITS = LimitsConfig(row_seconds=1e9, memory_bytes=1 << 50)
"""Limits that nothing exceeds: only what ends the process by itself costs a row."""


class SandboxedStage:
    """Maps tables as ``stage`` does, row by row, in one long-lived worker process.

    A task is blamed if it is over a limit, or if the worker exits at it twice (the second time with no other row
    before it in a new worker). It then is a ``SampleError`` inside the stage: ``timeout``, ``memory`` or ``crash``. The
    other rows of the table are computed; those before the row of an exit are computed twice.

    After three blamed tasks of one file, without a successful one between them, the other tasks of that file fail
    without a try: a long video that hangs in each window must not cost a time limit for each.

    A journaled stage maps a table at once, and records no tasks. If the worker exits, it maps the table again row by
    row, each as a task, while nothing else runs in the worker. A failure of its device ends the worker too: a later
    process opens the device again.

    Several threads may call a journaled stage, as many at a time as ``options.concurrency``.

    Args:
        stage: the stage; it must pickle.
        limits: time and memory that one task may take.
        options: how the worker is started.
        journaled: the stage takes a `RowJournal` as its second argument.
    """

    def __init__(
        self, stage: Stage, limits: LimitsConfig, options: ProcessOptions | None = None, journaled: bool = False
    ) -> None:
        self.stage, self.limits, self.journaled = stage, limits, journaled
        self.options = replace(options or ProcessOptions(), encodes=journaled)
        self.stopped = False
        self.cautious_rows = 0
        """Rows for which a part of a table stays small."""
        self.row_s = _PART_S / _MIN_PART
        """Seconds that a row took when several were last mapped at a time."""
        self.device_failures, self.has_succeeded = 0, False
        self.refused: dict[TaskKey, Reason] = {}
        self.strikes: dict[bytes, int] = {}
        self.child: WorkerProcess | None = None
        self._started: AnyProcess | None = None
        """The process that was started last."""
        self.pool = BufferPool()
        self._lock = threading.RLock()
        """Held while the state of this object changes."""
        self._tables = ReadWriteLock()
        """Held while the worker maps a table: exclusively, if that goes row by row."""

    def setup(self) -> None:
        """Starts the worker and sets the stage up in it. Raises ``TesseraError``, and what ``stage.setup`` raises."""
        with self._lock:
            self._worker()

    def close(self) -> None:
        """Ends the worker; a later call starts another one."""
        with self._lock:
            if self.child is not None:
                self.child.close()
            self.child = None

    def stop(self) -> None:
        """Ends the worker from another thread. The call that waits for it raises ``TesseraError``, and so do others."""
        self.stopped = True
        if (process := self._started) is not None:
            with suppress(OSError):  # it has just ended by itself
                process.kill()

    def _note_started(self, process: AnyProcess) -> None:
        self._started = process
        self._check_not_stopped()  # before, `stop` could not see it

    def __call__(self, table: pa.Table) -> pa.Table:
        """Maps a table.

        Raises:
            TesseraError: the worker cannot start, or exits repeatedly while it runs no task.
            DeviceFailed: the device fails at every row.
            Exception: what the stage raises outside of its rows.
        """
        todo, mapped = self._parts(len(table)), dict[int, pa.Table]()
        while todo:
            start, stop, row_by_row = todo.pop()
            result = self._map(table.slice(start, stop - start), row_by_row=row_by_row)
            if not isinstance(result, WorkerExit):
                mapped[start] = result
            elif self.journaled and not row_by_row:
                todo.append((start, stop, True))
            elif stop - start <= 1:
                mapped[start] = self._retry_row(table.slice(start, 1), result)
            elif result.task is None:
                middle = (start + stop) // 2
                todo += [(middle, stop, row_by_row), (start, middle, row_by_row)]
            else:
                row = start + result.task.row
                mapped[row] = self._retry_row(table.slice(row, 1), result)
                todo += [(first, end, False) for first, end in ((row + 1, stop), (start, row)) if first < end]
        if len(mapped) == 1:
            return mapped[0]
        return pa.concat_tables([mapped[start] for start in sorted(mapped)], promote_options="default")

    def _parts(self, rows: int) -> list[tuple[int, int, bool]]:
        """Returns the parts of a table that are mapped at a time, last one first: start, stop, and row by row or not.

        After an exit parts are small for a while: where one file kills, others may, and each costs the rows before it
        in its part.
        """
        step = max(1, rows)
        if not self.journaled and self.cautious_rows > 0:
            step = min(max(_MIN_PART, round(_PART_S / self.row_s)), _MAX_PART)
        return [(start, min(start + step, rows), False) for start in reversed(range(0, max(1, rows), step))]

    def _retry_row(self, row: pa.Table, exit_: WorkerExit) -> pa.Table:
        """Maps one row at which a worker exited, in new workers, until each of its tasks succeeds or is blamed."""
        exits: Counter[TaskKey | None] = Counter()
        refuse_all: Reason | None = None
        while True:
            key = exit_.task.key if exit_.task else None
            exits[key] += 1
            reason = (exit_.kind, exit_.message)
            if refuse_all is not None:
                raise TesseraError(f"{exit_.message}, {exits[None]} times{_at(row)}, with no file to blame")
            if key is None:
                refuse_all = reason if exits[None] >= _EXITS_WITHOUT_TASK else None
            elif exit_.over_limit or exits[key] >= _EXITS_TO_BLAME:
                self._blame(exit_, reason)
            result = self._map(row, refuse_all, self.journaled)
            if not isinstance(result, WorkerExit):
                return result
            exit_ = result

    def _blame(self, exit_: WorkerExit, reason: Reason) -> None:
        """Refuses the task of an exit from now on; after several of one file, the whole file."""
        assert exit_.task is not None
        file_key, _ = exit_.task.key
        with self._lock:
            self._refuse(exit_.task.key, reason)
            if self.journaled:  # each row is judged alone: rows of one sample may be good
                return
            self.strikes[file_key] = self.strikes.pop(file_key, 0) + 1
            _limit_size(self.strikes)
            if self.strikes[file_key] >= _FILE_STRIKES:
                kind, message = reason
                self._refuse(
                    (file_key, WHOLE_FILE), (kind, f"{message}, as {_FILE_STRIKES} others of this file: not tried")
                )

    def _refuse(self, key: TaskKey, reason: Reason) -> None:
        self.refused.pop(key, None)
        self.refused[key] = reason
        _limit_size(self.refused)

    def _map(
        self, table: pa.Table, refuse_all: Reason | None = None, row_by_row: bool = False
    ) -> pa.Table | WorkerExit:
        """Maps a table in the worker; returns how the worker exited if it did."""
        with self._tables.write() if row_by_row else self._tables.read():
            with self._lock:
                worker = self._worker()
                policy = TaskPolicy({**self.refused}, frozenset(self.strikes), refuse_all, row_by_row)
            started = time.perf_counter()
            result = worker.map(table, policy)
            with self._lock:
                if isinstance(result, WorkerExit):
                    self._drop(worker, result)
                    return result
                self.cautious_rows -= len(table)
                if len(table) > 1:  # one alone may have been refused, or be the first of its process
                    self.row_s = (time.perf_counter() - started) / len(table)
                if not (row_by_row and len(table) == 1):  # such a row may have been refused
                    self.device_failures, self.has_succeeded = 0, True
                for file_key in result.survived:
                    self.strikes.pop(file_key, None)
        return result.table

    def _drop(self, worker: WorkerProcess, exit_: WorkerExit) -> None:
        """Forgets a worker that exited, and ends one whose device failed. Raises if the device does nothing else."""
        if self.child is not worker:  # another thread has noticed
            return
        self.child, self.cautious_rows = None, _CAUTIOUS_ROWS
        if exit_.device is None:
            return
        worker.close()
        if exit_.task is not None and exit_.task.number > 1:  # rows before it succeeded
            self.device_failures, self.has_succeeded = 0, True
        self.device_failures += 1
        if self.device_failures > (_DEVICE_FAILURES if self.has_succeeded else _DEVICE_FAILURES_AT_FIRST):
            raise exit_.device

    def _worker(self) -> WorkerProcess:
        """Returns the worker; a new one if it exited between two tables, for which no task is blamed."""
        if self.child is None or not self.child.alive:
            self.close()
            self._check_not_stopped()
            self.child = WorkerProcess(self.stage, self.limits, self.pool, self.options, self._note_started)
        return self.child

    def _check_not_stopped(self) -> None:
        """Raises ``TesseraError``, and ends the worker, if the stage was stopped."""
        if self.stopped:
            self.close()
            raise TesseraError(f"{type(self.stage).__name__} was stopped")


def _at(row: pa.Table) -> str:
    """Returns words that name a row, if it has a name."""
    if not {"sample_id", "window"} <= {*row.column_names}:
        return ""
    return f" at sample {row['sample_id'][0].as_py()!r}, window {row['window'][0].as_py()}"


def _limit_size(memory: dict[Any, Any]) -> None:
    """Drops the oldest entry of a full dict: the policy that is sent with each table must stay small."""
    if len(memory) > _MAX_REMEMBERED:
        del memory[next(iter(memory))]
