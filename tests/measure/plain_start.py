"""What a plain Ray Data script takes before its first rows are written: `python -m tests.measure.plain_start`.

It does what such a script cannot leave out: starts Ray here, starts an actor a core that imports torch and
`transformers`, maps a few rows, and writes them as Parquet. Start-up of `tessera extract` is to be seen beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import psutil

SCRIPT = """
import logging, sys
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
logging.getLogger("ray.data").setLevel(logging.ERROR)
context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
context.print_on_execution_start = False

class Encoder:
    def __init__(self):
        import torch
        from transformers import AutoImageProcessor, CLIPModel

    def __call__(self, batch):
        return batch

rows = ray.data.range(64, override_num_blocks=4)
pool = ray.data.ActorPoolStrategy(size=2)
rows.map_batches(Encoder, compute=pool, num_cpus=0.4, batch_size=None).write_parquet(sys.argv[1])
"""


def main() -> None:
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        spent: dict[int, float] = {}
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    times = one.cpu_times()
                    spent[one.pid] = times.user + times.system
            time.sleep(0.2)
        written = sum(name.endswith(".parquet") for name in os.listdir(folder))
    print(f"{len(spent)} processes, {sum(spent.values()):.1f} s CPU, {time.time() - started:.1f} s; {written} files")


if __name__ == "__main__":
    main()
