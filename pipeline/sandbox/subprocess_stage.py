"""Runs a stage in a process forked from a fork server, to spare the calling process its imports. Not for safety."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.core.errors import ProcessDied
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.process import WorkerExit, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import TaskPolicy


class SubprocessStage:
    """Maps tables as ``stage`` does, in a worker process. If the fork server is gone, it is a new Python interpreter.

    Tables with a journal are mapped in the calling process, whose crashes the engine counts. Only one of the two
    processes holds the models at a time.

    Args:
        stage: has ``setup``, ``close`` and, for tables with a journal, a second argument.
        fork_server: address of the fork server.
    """

    def __init__(self, stage: Any, fork_server: str) -> None:
        self.stage, self.fork_server = stage, fork_server
        self.child: WorkerProcess | None = None

    def setup(self) -> None:
        """Starts the process and sets the stage up in it. Raises what ``stage.setup`` raises."""
        self.child = WorkerProcess(self.stage, LimitsConfig(), BufferPool(), self.fork_server)

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        """Maps a table.

        Args:
            table: the table.
            journal: passed to the stage; None: the table is mapped in the worker process.

        Raises:
            ProcessDied: the worker process died.
            Exception: what the stage raises.
        """
        if journal is not None:
            if self.child is not None:
                self.close()
                self.stage.setup()
            return self.stage(table, journal)
        if self.child is None:
            self.stage.close()
            self.setup()
        assert self.child is not None
        result: Any = self.child.map(table, TaskPolicy())
        if isinstance(result, WorkerExit):
            raise ProcessDied(result.message)
        return result.table

    def close(self) -> None:
        """Ends the process; a later call starts another one."""
        if self.child is not None:
            self.child.close()
        self.child = None
