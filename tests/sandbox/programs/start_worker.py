"""Starts a worker process, prints its pid, runs ACTION in it, and waits: ACTION [FORK_SERVER_ADDRESS].

Nothing runs if ACTION is empty.
"""

import sys

import pyarrow as pa

from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from tests.sandbox.plain_stages import Plain

action, *address = sys.argv[1:]
stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(*address))
stage.setup()
print(stage.child.process.pid, flush=True)
if action:
    stage(pa.table({"do": [action]}))
sys.stdin.read()
