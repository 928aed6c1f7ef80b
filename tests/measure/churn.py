"""What a night costs when little changed: `python -m tests.measure.churn [samples]`.

Pictures in at least 50 shards; then 1 % of them changed, 1 % new and 1 % deleted, at random. Prints what the second run
computed, and the bytes that it wrote anywhere below the dataset for each byte of the rows that are new or replaced,
and of the pictures themselves.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import config as configs
from pipeline import dataset, run
from tests.support import local_runs

SHARE = 0.01
FEATURE: dict[str, Any] = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
    with tempfile.TemporaryDirectory(prefix="tessera-churn-") as name:
        folder, dice = Path(name), random.Random(0)
        (folder / "in").mkdir()
        for i in range(samples):
            _draw(folder / "in" / f"{i:06}.png", i)
        first_s, first = _night(folder)
        before = _files(folder / "out")
        shards = len(dataset.open(str(folder / "out")).shards)
        few = max(1, round(samples * SHARE))
        chosen = dice.sample(range(samples), 2 * few)
        for i in chosen[:few]:
            _draw(folder / "in" / f"{i:06}.png", samples + i)
        for i in chosen[few:]:
            os.unlink(folder / "in" / f"{i:06}.png")
        for i in range(samples, samples + few):
            _draw(folder / "in" / f"{i:06}.png", i)
        second_s, second = _night(folder)
        after = _files(folder / "out")
        written = sum(size for path, size in after.items() if path not in before)
        third_s, third = _night(folder)
        wanted = {f"{i:06}.png" for i in [*chosen[:few], *range(samples, samples + few)]}
        rows = dataset.open(str(folder / "out")).to_arrow(["sample_id", "run_id"]).to_pylist()
        computed = {row["sample_id"] for row in rows if row["run_id"] == second["run_id"]}
        changed_bytes = sum((folder / "in" / path).stat().st_size for path in wanted)
        print(f"first run: {samples} samples, {shards} shards, {first['bytes_written']} bytes, {first_s:.1f} s")
        print(f"second run: {second['samples_by_class']}, decoded {second['decoded']}, {second_s:.1f} s")
        print(f"exactly those computed: {computed == wanted}, {len(computed)} of {len(rows)} rows")
        print(
            f"written: {written} bytes, {written / second['bytes_written']:.2f} a byte of the {len(computed)} rows "
            f"({second['bytes_written']} bytes), {written / changed_bytes:.2f} a byte of their pictures "
            f"({changed_bytes} bytes), {written / first['bytes_written']:.1%} of the first run's"
        )
        print(f"third run: decoded {third['decoded']}, opened {third['bytes_read']} bytes, {third_s:.1f} s")


def _draw(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(path)


def _night(folder: Path) -> tuple[float, dict[str, Any]]:
    raw = {
        "source": {"kind": "files", "path": str(folder / "in")},
        "output": {"path": str(folder / "out")},
        "features": {"p": FEATURE},
        "compute": {"block_rows": 5},  # 80 rows a shard at least
    }
    started = time.monotonic()
    report = run.extract(local_runs.prepare(configs.parse(raw)), show_progress=False)
    return time.monotonic() - started, report


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
