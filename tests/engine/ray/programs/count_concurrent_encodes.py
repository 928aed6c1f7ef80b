"""Extracts with `SlowEncode` on a Ray with a GPU in name only: CONFIG."""

import logging
import sys

import ray

from pipeline import config, run
from pipeline.engine import node_check
from pipeline.run import pipeline
from tests.engine.slow_encoder import SlowEncode

ray.init(
    address="local",
    num_cpus=3,
    num_gpus=1,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
)
pipeline.EncodeStage = SlowEncode
node_check.has_gpu = lambda: True
run.extract(run.prepare(config.load(sys.argv[1]), False, None, "ray"), show_progress=False)
ray.shutdown()
