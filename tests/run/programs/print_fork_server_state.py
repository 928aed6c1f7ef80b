"""Imports what fork servers import, on one machine and in a worker of Ray; prints the number of threads, and whether
VideoMAE's module is loaded."""

import sys
from pathlib import Path

from pipeline import config
from pipeline.engine._hosting import import_code_of
from pipeline.run import fork_server
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage

settings = config.load("configs/media.yaml")
features = fork_server.prepare(settings)
import_code_of([stage(settings, features) for stage in (ProbeStage, DecodeStage, EncodeStage)])
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
print(threads.count("python"), "transformers.models.videomae.modeling_videomae" in sys.modules)
