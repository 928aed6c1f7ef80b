"""Imports what a fork server imports; prints its number of threads, and whether VideoMAE's module is loaded."""

import sys
from pathlib import Path

from pipeline import config
from pipeline.run import fork_server

fork_server.prepare(config.load("configs/media.yaml"))
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
print(threads.count("python"), "transformers.models.videomae.modeling_videomae" in sys.modules)
