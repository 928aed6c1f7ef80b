"""A stage in a supervised worker process: a crash, a hang or a runaway allocation costs one cell.

stage.py             SandboxedStage: what is tried again after a death, and what is blamed
process.py           the parent's side of a worker process: start, watch, end
worker.py            the process itself: sets the stage up, then maps table after table
tasks.py             what the process is working on, noted where its death does not reach
shared_memory.py     tables in shared memory
fork_server.py       a process that has imported the heavy libraries, and from which the others fork
process_tree.py      ends a process with all that it started
subprocess_stage.py  a stage in such a process, not for safety but for the imports that it spares

It imports `decoders.limits`, `storage` and `core`.
"""

from __future__ import annotations

from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.fork_server import ForkServer
from pipeline.sandbox.stage import SandboxedStage
from pipeline.sandbox.subprocess_stage import SubprocessStage
from pipeline.sandbox.tasks import Guard, Task, unguarded

__all__ = ["ForkServer", "Guard", "LimitsConfig", "SandboxedStage", "SubprocessStage", "Task", "unguarded"]
