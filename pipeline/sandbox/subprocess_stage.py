"""A stage in a process that a template forked, only to spare this one its imports: nothing that dies there is blamed
here."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.core.errors import ProcessDied
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.process import WorkerExit, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import TaskPolicy
from pipeline.sandbox.worker import Stage


class SubprocessStage:
    """Maps tables as ``stage`` does. Of a template that is gone it sets the stage up in a process of its own."""

    def __init__(self, stage: Stage, template: str) -> None:
        self.stage, self.template = stage, template
        self.child: WorkerProcess | None = None

    def setup(self) -> None:
        """Start the process, set the stage up there. Raises what the stage's ``setup`` raises."""
        self.child = WorkerProcess(self.stage, LimitsConfig(), BufferPool(), self.template)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Raises what the stage raises; ``ProcessDied`` if its process did."""
        assert self.child is not None
        answer: Any = self.child.map(table, TaskPolicy())
        if isinstance(answer, WorkerExit):
            raise ProcessDied(answer.message)
        return answer.table

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
        self.child = None
