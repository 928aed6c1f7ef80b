"""A stage in a process of its own. After a death: which work is tried again, which is blamed, what is computed anew."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from pipeline.core.errors import TesseraError
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.process import WorkerExit, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import WHOLE_FILE, Reason, TaskKey, TaskPolicy
from pipeline.sandbox.worker import Stage

_DEATHS = 2
_DEATHS_AT_NOTHING = 3
_FILE_STRIKES = 3
_REMEMBERED = 256


class SandboxedStage:
    """Maps tables as ``stage`` does, row by row, in one long-lived child process.

    A work that is over a limit, or at which the child died twice (the second time first in a fresh child), is a
    ``SampleError`` inside the stage: ``timeout``, ``memory`` or ``crash``. Rows beside it are computed, those
    before it twice. After three such works of one file, and none that ended well between, the others of that file fail
    untried: a long video that hangs in every window must not cost a time limit each.
    """

    def __init__(self, stage: Stage, limits: LimitsConfig, template: str | None = None) -> None:
        self.stage, self.limits, self.template = stage, limits, template
        self.name = type(stage).__name__
        self.refused: dict[TaskKey, Reason] = {}
        self.strikes: dict[bytes, int] = {}
        self.child: WorkerProcess | None = None
        self.pool: BufferPool | None = None

    def setup(self) -> None:
        """Start the child, set the stage up there. Raises ``TesseraError``, and what the stage's ``setup`` raises."""
        self._ready()

    def close(self) -> None:
        """End the child; a further call starts another."""
        if self.child is not None:
            self.child.close()
        self.child = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises what the stage raises as a whole; ``TesseraError`` if the child cannot start, or dies at nothing."""
        todo, done = [(0, len(table))], dict[int, pa.Table]()
        while todo:
            start, stop = todo.pop()
            result = self._try(table.slice(start, stop - start))
            if not isinstance(result, WorkerExit):
                done[start] = result
            elif stop - start <= 1:
                done[start] = self._alone(table.slice(start, 1), result)
            elif result.noted is None:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
            else:
                row = start + result.noted.row
                done[row] = self._alone(table.slice(row, 1), result)
                todo += [piece for piece in ((row + 1, stop), (start, row)) if piece[0] < piece[1]]
        if len(done) == 1:
            return done[0]
        return pa.concat_tables([done[start] for start in sorted(done)], promote_options="default")

    def _alone(self, row: pa.Table, death: WorkerExit) -> pa.Table:
        """One row at which a child died, in fresh ones, until each of its works is done or blamed."""
        deaths: Counter[TaskKey | None] = Counter()
        nothing: Reason | None = None
        while True:
            key = death.noted.key if death.noted else None
            deaths[key] += 1
            reason = (death.kind, death.message)
            if nothing is not None:
                raise TesseraError(f"{death.message}, {deaths[None]} times, with no file to blame")
            if key is None:
                nothing = reason if deaths[None] >= _DEATHS_AT_NOTHING else None
            elif death.ours or deaths[key] >= _DEATHS:
                self._blame(death, reason)
            result = self._try(row, nothing)
            if not isinstance(result, WorkerExit):
                return result
            death = result

    def _blame(self, death: WorkerExit, reason: Reason) -> None:
        assert death.noted is not None
        self._refuse(death.noted.key, reason)
        file, _ = death.noted.key
        self.strikes[file] = self.strikes.pop(file, 0) + 1
        _forget(self.strikes)
        if self.strikes[file] >= _FILE_STRIKES:
            kind, message = reason
            self._refuse((file, WHOLE_FILE), (kind, f"{message}, as {_FILE_STRIKES} others of this file: not tried"))

    def _refuse(self, key: TaskKey, reason: Reason) -> None:
        self.refused.pop(key, None)
        self.refused[key] = reason
        _forget(self.refused)

    def _try(self, table: pa.Table, nothing: Reason | None = None) -> pa.Table | WorkerExit:
        orders = TaskPolicy(self.refused, frozenset(self.strikes), nothing)
        result = self._ready().map(table, orders)
        if isinstance(result, WorkerExit):
            self.child = None
            return result
        for file in result.survived:
            self.strikes.pop(file, None)
        return result.table

    def _ready(self) -> WorkerProcess:
        """The child; a fresh one if it died between two tables, which is nobody's fault."""
        if self.child is None or not self.child.alive:
            self.close()
            self.pool = self.pool or BufferPool()
            self.child = WorkerProcess(self.stage, self.limits, self.pool, self.template)
        return self.child


def _forget(memory: dict[Any, Any]) -> None:
    """The oldest goes: what a child is told with every table stays small."""
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
