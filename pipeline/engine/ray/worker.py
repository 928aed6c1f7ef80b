"""The stages of a step in a Ray worker: set up once for each process, then called block after block."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import UserCodeException

from pipeline.core.errors import DeviceFailed, ProcessDied, TesseraError, describe
from pipeline.core.system import allocator
from pipeline.core.system.read_write_lock import ReadWriteLock
from pipeline.engine.progress import count_rows
from pipeline.engine.ray.counter import WorkerMemory
from pipeline.engine.ray.crash_journal import CrashJournalClient
from pipeline.engine.spec import StageSpec
from pipeline.sandbox import SandboxedStage, SubprocessStage
from pipeline.stages.rows import add_meter

_REPORT_S = 10.0
"""Longest wait until the counter has received the error of a worker."""


class StageWorker:
    """The stages of a step in one worker process. An actor class for Ray Data, also used by `TaskWorker`.

    Args:
        specs: the stages of one step.
        counter: actor handle of the run's counter (`engine.ray.counter`).
        fork_server: address of the fork server on this machine. None: processes are started without one.
        last: this is the last step, whose rows are finished and counted for the progress bar.
    """

    def __init__(self, specs: Sequence[StageSpec], counter: Any, fork_server: str | None, last: bool) -> None:
        allocator.keep_pages()
        self.specs, self.counter, self.last = specs, counter, last
        self.stages = [_hosted(spec, fork_server) for spec in specs]
        self.splitter = next((spec.splitter for spec in specs if spec.splitter is not None), None)
        self.memory = WorkerMemory(counter)
        self.journal = CrashJournalClient(counter) if any(spec.journaled for spec in specs) else None
        self.broken: Exception | None = None
        self.lock = ReadWriteLock()
        try:
            if self.journal is not None:
                self.journal.begin_setup()
            _set_up(self.stages)
        except Exception as error:  # raised by the first call, since Ray reports no cause if an actor does not start
            self.broken = error
        if self.journal is not None:
            self.journal.end_work()

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        """Returns the mapped rows as one table, or as a generator of tables if they need too much memory together."""
        parts = [table] if self.splitter is None else self.splitter.split(table)
        if len(parts) > 1:
            return self._map_parts(parts)
        done = self._map(table)
        if self.last:
            self.counter.add.remote(*count_rows(done))
        return done

    def _map_parts(self, parts: list[pa.Table]) -> Generator[pa.Table]:
        """Maps the parts of a block one after another."""
        counts = []
        for part in parts:
            try:
                done = [self._map(part)]
            except Exception as error:  # as Ray wraps errors of plain functions, which it logs without a traceback
                raise UserCodeException("a part of a block failed") from error
            if self.last:
                counts.append(count_rows(done[0]))
            yield done.pop()  # a local variable would keep the table in memory until the next part
        if counts:  # only at the end: after a crash Ray repeats the whole block
            self.counter.add.remote(*map(sum, zip(*counts, strict=True)))

    def _map(self, table: pa.Table) -> pa.Table:
        """Maps one table through all stages. Ends the process if it, or its device, cannot continue."""
        try:
            if self.broken is not None:
                raise self.broken
            is_suspected = self.journal is not None and self.journal.is_suspect(table)
            with self.lock.write() if is_suspected else self.lock.read():
                journal = self.journal if self.journal is not None and self.journal.begin_block(table) else None
                for spec, stage in zip(self.specs, self.stages, strict=True):
                    table = stage(table, journal) if spec.journaled else stage(table)
        except ProcessDied:
            os._exit(1)
        except Exception as error:
            if (
                isinstance(error, DeviceFailed)
                and self.journal is not None
                and self.journal.report_device_failure(error.words)
            ):
                os._exit(1)
            cause = error if isinstance(error, TesseraError) else TesseraError(describe(error))
            ray.wait([self.counter.record_error.remote(cause)], timeout=_REPORT_S)
            raise
        self.memory.report(self._processes())
        return add_meter(table, "bytes_moved", np.full(len(table), table.nbytes / max(1, len(table))))

    def _processes(self) -> list[int]:
        """Returns the ids of the stages' processes, which may be children of a fork server."""
        children = [stage.child for stage in self.stages if isinstance(stage, SandboxedStage | SubprocessStage)]
        return [child.process.pid for child in children if child is not None]


class TaskWorker:
    """A step as a callable for Ray tasks. A worker process keeps its stages between tasks."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.__name__ = name
        self.arguments, self.key = arguments, secrets.token_bytes(8)

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        if self.key not in _READY:
            _READY[self.key] = StageWorker(*self.arguments)
        return _READY[self.key](table)


_READY: dict[bytes, StageWorker] = {}
"""The stages of this process, by `TaskWorker.key`."""


def _hosted(spec: StageSpec, fork_server: str | None) -> Any:
    """Returns the stage, wrapped so that it runs in the process that the spec asks for."""
    if spec.limits is not None:
        return SandboxedStage(spec.stage, spec.limits, fork_server)
    if spec.own_process and fork_server is not None:
        return SubprocessStage(spec.stage, fork_server)
    return spec.stage


def _set_up(stages: Sequence[Any]) -> None:
    """Sets all stages up: those in processes of their own in this thread, the others in parallel in another thread.

    A process ends with the thread that started it, so this thread starts it. Raises what a ``setup`` raises.
    """
    with ThreadPoolExecutor(1) as other_thread:
        own = [stage for stage in stages if isinstance(stage, SandboxedStage | SubprocessStage)]
        others = [other_thread.submit(stage.setup) for stage in stages if stage not in own]
        for stage in own:
            stage.setup()
        for other in others:
            other.result()
