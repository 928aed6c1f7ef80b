"""Lets a forked worker process start a descendant, then hang: PID_FILE FORK_SERVER_ADDRESS child|orphan."""

import sys

import pyarrow as pa

from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from tests.sandbox.plain_stages import Starter

pid_file, address, how = sys.argv[1:]
stage = SandboxedStage(Starter(pid_file), LimitsConfig(), ProcessOptions(address))
stage(pa.table({"do": [how], "then": ["spin"]}))
