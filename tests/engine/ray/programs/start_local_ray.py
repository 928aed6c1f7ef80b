"""Starts a local Ray, prints its folders and its token with their modes as JSON, and waits for a line."""

import json
import os
import stat
import sys
from pathlib import Path

import ray

from pipeline.engine.ray import cluster
from tests.stages.media_fixtures import IMAGE, config

cluster.start(config(Path(sys.argv[1]), {"i": IMAGE}, compute={"num_cpus": 1}).compute)
ray.get(ray.remote(lambda: 1).remote())
session = ray._private.worker._global_node.get_session_dir_path()
token = os.environ["RAY_AUTH_TOKEN_PATH"]
paths = [session, os.path.dirname(session), os.path.dirname(os.path.dirname(session)), token, os.path.dirname(token)]
print(json.dumps([(path, stat.S_IMODE(os.stat(path).st_mode)) for path in paths]), flush=True)
sys.stdin.readline()
