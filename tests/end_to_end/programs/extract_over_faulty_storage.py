"""Extracts once per plan of faults, in one Ray: CORPUS OUT PLANS. Prints each report or error as a line of JSON."""

import json
import os
import sys

import ray

from pipeline import config as configs
from pipeline import run
from pipeline.core.errors import TesseraError
from pipeline.storage import retry
from tests.stages.media_fixtures import IMAGE
from tests.support import faulty
from tests.support.faulty import Fault

corpus, out, plans = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
hook = {"worker_process_setup_hook": "tests.end_to_end.test_faults.in_worker", "env_vars": {"PYTHONPATH": os.getcwd()}}
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=hook)
retry.BASE_S, retry.MAX_S = 0.01, 0.02
for plan in plans:
    for folder, faults in ((corpus, plan["corpus"]), (out, plan["out"])):
        faulty.plan(folder, {glob: [Fault(**one) for one in each] for glob, each in faults.items()})
    config = configs.parse(
        {
            "source": {"kind": "files", "path": f"faulty://{corpus}", "schemes": ["faulty"]},
            "output": {"path": f"faulty://{out}"},
            "features": {"i": IMAGE},
            "failures": {"max_fraction": 1.0},
            "compute": {"block_rows": 4},
            "storage": {"max_wait_s": 10},
        }
    )
    try:
        report = run.extract(run.prepare(config, False, None, "ray"))
        print("RESULT", json.dumps({"report": report}, default=str))
    except TesseraError as error:
        print("RESULT", json.dumps({"error": str(error), "type": type(error).__name__}))
