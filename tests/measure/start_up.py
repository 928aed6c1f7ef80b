"""What a small run costs by engine, next to the import of its model's code: `python -m tests.measure.start_up`.

Prints wall seconds of whole processes, measured in turn: the import of CLIP's code alone; `configs/first.yaml` on each
engine; the same run again with nothing to do, and its `--plan`. Needs `make setup` and the demo's corpus (`make demo`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import ROOT

IMPORT = "import transformers.models.clip.modeling_clip"


def seconds(cache: Path, *command: str) -> float:
    """Wall seconds of a Python process that ends well."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--config", default="configs/first.yaml")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="tessera-start-") as name:
        folder = Path(name)
        out = ["--set", f"output.path={folder / 'out'}"]
        extract = ["-m", "jobs.cli", "extract", asked.config, *out]
        for _ in range(asked.pairs):
            found.setdefault("import", []).append(seconds(folder / "none", "-c", IMPORT))
            for engine in ("ray", "local"):
                shutil.rmtree(folder / "out", ignore_errors=True)
                shutil.rmtree(folder / engine, ignore_errors=True)
                found.setdefault(engine, []).append(seconds(folder / engine, *extract, "--engine", engine))
            found.setdefault("nothing to do", []).append(seconds(folder / "local", *extract, "--engine", "local"))
            found.setdefault("--plan", []).append(seconds(folder / "local", *extract, "--plan"))
    for name, times in found.items():
        print(f"{name:14} median {statistics.median(times):5.2f} s of {[round(one, 1) for one in times]}")


if __name__ == "__main__":
    main()
