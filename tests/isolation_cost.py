"""What isolation costs where nothing goes wrong: `python -m tests.isolation_cost [processes]`.

CPU seconds of decoding and tokenizing real media in the process itself, against a child (its CPU seconds and its
parent's together): table by table in turn, in alternating order; of each table the least of all rounds counts, since
what else a shared machine does only adds. Fresh processes are as much as 6 % apart by themselves, so each pair is one
fresh process with one fresh child, and the interval is over those. `same malloc`: both with the settings of malloc
that every child has; `as shipped`: only the child. Numeric libraries have one thread in both, as in Ray's workers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import config as configs
from pipeline import sources
from pipeline.features import bind
from pipeline.isolation import Isolated, LimitsConfig
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage
from pipeline.tensors import unpack

DATA = Path(os.environ.get("TESSERA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
BLOCK_ROWS = 32
ROUNDS = 4
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
RAW: dict[str, Any] = {"encoder": {"kind": "raw"}, "emit": ["tokens"]}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "images": (
        "images/{coco,grocery,clothing}__*",
        {"modality": "image", "tokenizer": {"kind": "patch", "size": 224, "patch_size": 16}},
        {},
        6,
    ),
    "video, 2 s windows": (
        "videos/**",
        {
            "modality": "video",
            "tokenizer": {"kind": "frame", "size": 224, "sampling": {"kind": "uniform", "frames": 8}},
        },
        {"length_s": 2},
        1,
    ),
    "sound, 10 s windows": (
        "audio/**",
        {"modality": "audio", "tokenizer": {"kind": "audio_frame", "sample_rate": 16000}},
        {"length_s": 10},
        4,
    ),
}


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(_pair(sys.argv[1])))
        return
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    for name in CASES:
        for settings, more in (("same malloc", MALLOC), ("as shipped", {})):
            pairs = [_in_a_process(name, more) for _ in range(processes)]
            costs = [pair["isolated_s"] / pair["plain_s"] - 1 for pair in pairs]
            mean, half = float(np.mean(costs)), 2.2 * float(np.std(costs, ddof=1)) / math.sqrt(processes)
            told = {key: float(np.median([pair[key] for pair in pairs])) for key in pairs[0]}
            print(
                f"{name}, {settings}: {1000 * told['plain_s'] / told['rows']:.2f} ms a row; isolation {mean:+.1%}, "
                f"95 % interval {mean - half:+.1%} to {mean + half:+.1%} over {processes} pairs; "
                f"a child starts in {told['start_s']:.1f} s and takes {told['own_bytes'] / 1e6:.0f} MB",
                flush=True,
            )


def _in_a_process(name: str, settings: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, name, "pair"]
    done = subprocess.run(
        command,
        env={**os.environ, **THREADS, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _pair(name: str) -> dict[str, float]:
    """Both ways through the same tables, and what the child takes."""
    files, feature, window, blocks = CASES[name]
    stage, tables = _work(files, {**RAW, **feature}, window, blocks)
    plain, isolated = _fresh(stage), Isolated(_fresh(stage), LimitsConfig())
    started = time.perf_counter()
    isolated.setup()
    start_s = time.perf_counter() - started
    plain.setup()
    least = {id(one): np.full(len(tables), np.inf) for one in (plain, isolated)}
    for turn in range(1 + ROUNDS):
        for number, table in enumerate(tables):
            for one in (plain, isolated) if (turn + number) % 2 else (isolated, plain):
                seconds = _seconds(one, table, isolated)
                if turn:  # the first warms up
                    least[id(one)][number] = min(least[id(one)][number], seconds)
    own_bytes = _own_bytes(isolated)
    isolated.close()
    return {
        "plain_s": float(least[id(plain)].sum()),
        "isolated_s": float(least[id(isolated)].sum()),
        "rows": sum(map(len, tables)),
        "start_s": start_s,
        "own_bytes": own_bytes,
    }


def _work(
    files: str, feature: dict[str, Any], window: dict[str, Any], blocks: int
) -> tuple[DecodeStage, list[pa.Table]]:
    """The stage, and the rows that a probe cuts the files into, in blocks."""
    with tempfile.TemporaryDirectory() as out:
        settings = configs.parse(
            {
                "source": {"kind": "files", "path": str(DATA), "include": [files]},
                "output": {"path": out},
                "features": {"f": feature},
                "window": window,
            }
        )
    features = bind(settings)
    source = sources.build(settings.source)
    source.check("source")
    probe = ProbeStage(settings, features)
    probe.setup()
    listed = pa.concat_tables(source.list())
    enough = np.linspace(0, len(listed) - 1, min(len(listed), blocks * BLOCK_ROWS)).astype(int)
    rows = probe(listed.take(pa.array(enough)))
    rows = rows.slice((len(rows) - blocks * BLOCK_ROWS) // 2)
    return DecodeStage(settings, features), [rows.slice(at * BLOCK_ROWS, BLOCK_ROWS) for at in range(blocks)]


def _fresh(stage: DecodeStage) -> DecodeStage:
    return DecodeStage(stage.config, stage.features)


def _seconds(stage: Any, table: pa.Table, isolated: Isolated) -> float:
    """CPU seconds of the stage and of a reader of its arrays, of both processes."""
    started = _cpu_s(isolated)
    done = stage(table)
    for name in done.column_names:
        if "/" in name:
            for array in unpack(done[name]):
                if array is not None:
                    array.max()  # what an encoder does at least: reads each value once
    return _cpu_s(isolated) - started


def _cpu_s(isolated: Isolated) -> float:
    assert isolated.child is not None
    of_the_child = (~isolated.child.process.pid << 3) | 2  # the clock of another process: man clock_getcpuclockid
    return time.process_time() + time.clock_gettime(of_the_child)


def _own_bytes(isolated: Isolated) -> int:
    assert isolated.child is not None
    return isolated.child.memory.anonymous_bytes()


if __name__ == "__main__":
    main()
