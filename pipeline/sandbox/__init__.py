"""Runs a stage in a supervised worker process: a crash, a hang or a runaway allocation costs one cell.

stage.py                 SandboxedStage: retries after an exit of the worker, and decides which task is blamed
process.py               WorkerProcess: the parent's side of a worker; starts, watches and ends it
channel.py               Channel: what a worker and its parent talk through, one table at a time
worker_exit.py           WorkerExit: how a worker ended, in words
_spawned_process.py      SpawnedProcess: a worker that the parent starts as a new Python interpreter
worker.py                the worker itself: sets the stage up, then maps one table after another
tasks.py                 the task that a worker runs, recorded in shared memory that survives the worker
_process_memory.py       the memory of a process, measured and limited
shared_memory.py         tables in shared memory
_table_format.py         how the columns of a table are written into such memory, and read again
fork_server.py           ForkServer: a process with the heavy imports done, from which workers fork
_fork_server_process.py  the fork server itself: imports, then forks one worker per connection
process_tree.py          kills a process with all its descendants

This package imports `decoders.limits`, `storage` and `core`.
"""

from __future__ import annotations

from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.fork_server import ForkServer
from pipeline.sandbox.stage import SandboxedStage
from pipeline.sandbox.tasks import Guard, StageContext, Task, unguarded

__all__ = [
    "ForkServer",
    "Guard",
    "LimitsConfig",
    "SandboxedStage",
    "StageContext",
    "Task",
    "unguarded",
]
