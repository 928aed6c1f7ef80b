"""Runs a row of 0.6 s of CPU time in a worker process: prints the worker's pid, then the result."""

import pyarrow as pa

from pipeline.sandbox import LimitsConfig, SandboxedStage
from tests.sandbox.plain_stages import Busy

stage = SandboxedStage(Busy(0.6), LimitsConfig(row_seconds=5.0))
stage.setup()
print(stage.child.process.pid, flush=True)
print(stage(pa.table({"x": [1]}))["x"].to_pylist(), stage.refused)
