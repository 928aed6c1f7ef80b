"""The stages of a step in a Ray worker: set up once for each process, then called block after block."""

from __future__ import annotations

import atexit
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.exceptions import UserCodeException

from pipeline.core.errors import TesseraError, describe
from pipeline.core.schema import UNIT
from pipeline.core.system import allocator
from pipeline.engine._hosting import hosted, import_code_of, is_sandboxed
from pipeline.engine.progress import count_rows
from pipeline.engine.ray import metrics as ray_metrics
from pipeline.engine.ray.counter import WorkerReports
from pipeline.engine.ray.late_check import LateCheck
from pipeline.engine.spec import StageSpec
from pipeline.sandbox import ForkServer, SandboxedStage
from pipeline.sandbox.fork_server import ForkServerDied
from pipeline.sandbox.process import ProcessOptions
from pipeline.stages.rows import add_meter
from pipeline.stages.units import unit_names
from pipeline.storage import settings as storage_settings
from pipeline.storage.settings import StorageConfig
from pipeline.telemetry import recording
from pipeline.telemetry.config import NO_METRICS, MetricsConfig


class StageWorker:
    """The stages of a step in one worker process. An actor class for Ray Data, also used by `TaskWorker`.

    Decoders and encoders run in supervised processes of the worker, which end with it. They fork from one process with
    their imports, which take four seconds of a core or more: the worker starts sooner, and a death costs little.

    Args:
        specs: the stages of one step.
        concurrency: number of blocks that the worker maps at a time, each in a thread.
        counter: actor handle of the run's counter (`engine.ray.counter`).
        last: this is the last step, whose rows are finished and counted for the progress bar.
        storage: how this worker and its processes reach storages.
        late: the check of nodes that join during the run. None: there is none.
        asks: rows of units that the counter does not let begin any more are left out.
        metrics: whether finished rows are counted for Ray's agents.
    """

    def __init__(
        self,
        specs: Sequence[StageSpec],
        concurrency: int,
        counter: Any,
        last: bool,
        storage: StorageConfig,
        late: LateCheck | None = None,
        asks: bool = False,
        metrics: MetricsConfig = NO_METRICS,
    ) -> None:
        allocator.keep_pages()
        if last:
            ray_metrics.use(metrics)
        storage_settings.use_exactly(storage)
        self.last, self.asks = last, asks
        self.specs, self.concurrency = specs, concurrency
        self.stages: list[Any] = []
        self.fork_server: ForkServer | None = None
        self.splitter = next((spec.splitter for spec in specs if spec.splitter is not None), None)
        self.reports = WorkerReports(counter)
        self.broken: Exception | None = None
        atexit.register(self.close)  # Ray lets actors that are done end by themselves
        try:
            self.reports.start()
            if late is not None:
                late.check_this_node()
            self._set_up()
        except Exception as error:  # raised by the first call, since Ray reports no cause if an actor does not start
            self.broken = error
            self.close()

    def _set_up(self) -> None:
        """Starts the fork server, if a stage needs a process, and sets the stages up."""
        address = None
        if sandboxed := [spec.stage for spec in self.specs if is_sandboxed(spec)]:
            self.fork_server = ForkServer(import_code_of, sandboxed)
            with suppress(ForkServerDied):  # memory was short: each process is a new interpreter, which is tried again
                self.fork_server.prepared()
                address = self.fork_server.address
        self.stages = [hosted(spec, ProcessOptions(address, concurrency=self.concurrency)) for spec in self.specs]
        for stage in self.stages:
            stage.setup()

    def close(self) -> None:
        """Ends the processes, and removes the fork server's folder."""
        for stage in self.stages:
            if isinstance(stage, SandboxedStage):
                stage.close()
        if self.fork_server is not None:
            self.fork_server.close()
        self.stages, self.fork_server = [], None
        atexit.unregister(self.close)

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        """Returns the mapped rows as one table, or as a generator of tables if they need too much memory together."""
        if self.asks:
            table = self._begun(table)
        if not len(table):
            return self._map_parts([])  # Ray accepts a generator without tables
        parts = [table] if self.splitter is None else self.splitter.split(table)
        if len(parts) > 1:
            return self._map_parts(parts)
        done = self._map(table)
        if self.last:
            self.reports.add(*count_rows(done))
            recording.count_table(done)
        return done

    def _begun(self, table: pa.Table) -> pa.Table:
        """Returns the rows of units that may be computed. In the first step each row is a unit, which is only read."""
        begins = UNIT in table.column_names
        names = table[UNIT] if begins else unit_names(table)
        refused = self.reports.refused_units(pc.unique(names).to_pylist(), begins)
        return table.filter(pc.invert(pc.is_in(names, pa.array(refused, pa.string())))) if refused else table

    def _map_parts(self, parts: list[pa.Table]) -> Generator[pa.Table]:
        """Maps the parts of a block one after another."""
        counts, increments = [], []
        for part in parts:
            try:
                done = [self._map(part)]
            except Exception as error:  # as Ray wraps errors of plain functions, which it logs without a traceback
                raise UserCodeException("a part of a block failed") from error
            if self.last:
                counts.append(count_rows(done[0]))
                increments += recording.increments(done[0])
            yield done.pop()  # a local variable would keep the table in memory until the next part
        if counts:  # only at the end: after a crash Ray repeats the whole block
            self.reports.add(*map(sum, zip(*counts, strict=True)))
            recording.add(increments)

    def _map(self, table: pa.Table) -> pa.Table:
        """Maps one table through all stages. Reports the cause if that fails."""
        try:
            if self.broken is not None:
                raise self.broken
            block = self.reports.begin_block(table)
            for stage in self.stages:
                table = stage(table)
        except Exception as error:
            self.reports.record_error(error if isinstance(error, TesseraError) else TesseraError(describe(error)))
            raise
        self.reports.end_block(block)
        return add_meter(table, "bytes_moved", np.full(len(table), table.nbytes / max(1, len(table))))


class TaskWorker:
    """A step as a callable for Ray tasks. A worker process keeps its stages between the tasks of a run.

    Args:
        name: name of the step.
        run: a value that is the same for all steps of a run, and for no other run.
        arguments: those of `StageWorker`.
    """

    def __init__(self, name: str, run: bytes, *arguments: Any) -> None:
        self.arguments, self.key = arguments, (run, name)

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        if self.key not in _READY:
            for key in [key for key in _READY if key[0] != self.key[0]]:  # of a run that is over
                _READY.pop(key).close()
            _READY[self.key] = StageWorker(*self.arguments)
        return _READY[self.key](table)


_READY: dict[tuple[bytes, str], StageWorker] = {}
"""The stages of this process, by `TaskWorker.key`."""
