"""Lowers its own priority, forks a worker process from FORK_SERVER_ADDRESS, and prints the worker's priority."""

import os
import sys
from pathlib import Path

from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from tests.sandbox.plain_stages import Plain

Path("/proc/self/oom_score_adj").write_text("700")
os.nice(5)
stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(sys.argv[1]))
stage.setup()
pid = stage.child.process.pid
print(Path(f"/proc/{pid}/oom_score_adj").read_text().strip(), os.getpriority(os.PRIO_PROCESS, pid))
print(type(stage.child.process).__name__)
