"""Extracts on a Ray cluster whose only node with room is removed after 12 s.

Prints the error and the seconds as JSON.
"""

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from pipeline import run
from pipeline.core.errors import TesseraError
from pipeline.engine.ray import cluster as clusters
from pipeline.run import pipeline
from tests.engine.slow_encoder import Stuck
from tests.stages.media_fixtures import IMAGE, config

pipeline.EncodeStage, clusters._CHECK_EVERY_S, clusters._NO_ROOM_S = Stuck, 0.5, 4.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
large = cluster.add_node(num_cpus=4)
hook = {"env_vars": {"PYTHONPATH": "."}}
ray.init(address=cluster.address, log_to_driver=False, runtime_env=hook)
settings = config(Path(sys.argv[1]), {"i": IMAGE}, compute={"pools": {"default": {"num_cpus": 3, "max_actors": 1}}})
threading.Timer(12, lambda: cluster.remove_node(large)).start()
started = time.time()
try:
    run.extract(run.prepare(settings, False, None, "ray"), show_progress=False)
except TesseraError as error:
    print("ERROR", json.dumps({"error": str(error), "seconds": time.time() - started}), flush=True)
