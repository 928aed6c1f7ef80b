"""Extracts on a Ray with a GPU in name only: CONFIG FOLDER.

Writes into FOLDER/most-FEATURE how many blocks each encoder took at the same time, at most.
"""

import logging
import sys
import threading
import time
from pathlib import Path

import ray

from pipeline import config, run
from pipeline.run import pipeline
from pipeline.stages.encode import EncodeStage

ray.init(
    address="local",
    num_cpus=3,
    num_gpus=1,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
)
path, folder = sys.argv[1:]


class Slow(EncodeStage):
    def setup(self):
        super().setup()
        self.inside, self.most, self.lock = 0, 0, threading.Lock()

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __call__(self, table, journal=None):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(1)
        done = super().__call__(table, journal)
        with self.lock:
            self.inside -= 1
        Path(folder, f"most-{self.features[0].name}").write_text(str(self.most))
        return done


pipeline.EncodeStage = Slow
run.extract(run.prepare(config.load(path), False, None, "ray"), show_progress=False)
ray.shutdown()
