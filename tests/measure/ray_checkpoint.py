"""What Ray Data's own `CheckpointConfig` costs: `python -m tests.measure.ray_checkpoint FILE.parquet`.

The manifest's rows (column ``uri``, which is their id) through `read_parquet` and `write_parquet`: without and with a
checkpoint in turn, then again with the checkpoint of a finished run, when nothing is to be done. Seconds, and the peak
memory of the driver and all of Ray's processes. Ours, on the same file: `python -m tests.measure.difference_scale`.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import ray
from ray.data import DataContext
from ray.data.checkpoint import CheckpointConfig

from pipeline.engine.memory import MemoryMeter

PAIRS = 3


def main() -> None:
    manifest = sys.argv[1]
    warnings.simplefilter("ignore")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory(prefix="tessera-ray-checkpoint-") as name:
        folder = Path(name)
        _once(manifest, folder, None)  # warms up
        for _ in range(PAIRS):
            shutil.rmtree(folder / "ids", ignore_errors=True)
            print("without:", _once(manifest, folder, None), flush=True)
            print("with:   ", _once(manifest, folder, folder / "ids"), flush=True)
        print("nothing to do:", _once(manifest, folder, folder / "ids"), flush=True)


def _once(manifest: str, folder: Path, ids: Path | None) -> str:
    context = DataContext.get_current()
    context.checkpoint_config = None
    if ids is not None:
        context.checkpoint_config = CheckpointConfig(
            id_column="uri", checkpoint_path=str(ids), delete_checkpoint_on_success=False
        )
    shutil.rmtree(folder / "out", ignore_errors=True)
    started = time.perf_counter()
    with MemoryMeter() as memory:
        ray.data.read_parquet(manifest).write_parquet(str(folder / "out"))
    seconds = time.perf_counter() - started
    written = sum(path.stat().st_size for path in (folder / "out").rglob("*.parquet"))
    return f"{seconds:.1f} s, {memory.peak / 1e6:.0f} MB at the peak, {written} bytes written"


if __name__ == "__main__":
    main()
