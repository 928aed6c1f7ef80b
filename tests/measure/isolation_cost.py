"""What isolation costs where nothing goes wrong: `python -m tests.measure.isolation_cost [pairs] [media]`.

CPU seconds of real media's rows, in the process itself against a child (its CPU seconds and its parent's together):
some tables one way, then the same the other way, and again; of each table the least of all rounds counts, since what
else a shared machine does only adds. (Turns of a single table would measure caches that a run never finds so cold:
there each process goes on with its own.) Every core has a worker, and all go the same way at the same time, as in a
run: a core that idles between two tables finds its caches cold. Told for decoding and tokenizing alone, and with what
every run does beside it, at the least: making the columns of raw tokens.

Where a process's buffers happen to lie is worth 3 % of decoding, one way or the other, and is the same in every round.
So the process that decodes by itself is the child too: for ``ALONE`` it takes tables that it has already, with none to
watch it, and encodes them there. And something of random size is allocated before each table, which moves the buffers
about. Each pair is fresh workers with fresh children, and the interval is over those. malloc is set and numeric
libraries have one thread, as in every worker of a run.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch  # noqa: F401 - as in each process that encodes, where it casts tokens to float16

from pipeline import config as configs
from pipeline import sources
from pipeline.config.features import BoundFeature, bind
from pipeline.config.models import PipelineConfig
from pipeline.core.system import allocator
from pipeline.sandbox import LimitsConfig, SandboxedStage, StageContext
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from tests.support import ROOT

DATA = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data"))
BLOCK_ROWS = 32
ROUNDS = 6
STUDENT = 2.3
"""Student's t for 95 % of ten pairs; for more, on the safe side."""
ALONE = pa.table({"alone": [True]})
_PATIENCE_S = 300
_together: Barrier
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
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
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    os.environ.update(THREADS)
    for name in CASES:
        if len(sys.argv) > 2 and not name.startswith(sys.argv[2]):
            continue
        found = [_pair(name) for _ in range(pairs)]
        reported = {key: float(np.median([pair[key] for pair in found])) for key in found[0]}
        for part, of in (("decoding", "decoding and tokenizing alone"), ("all", "with raw columns")):
            costs = [pair[f"isolated_{part}_s"] / pair[f"plain_{part}_s"] - 1 for pair in found]
            mean, half = float(np.mean(costs)), STUDENT * float(np.std(costs, ddof=1)) / math.sqrt(pairs)
            print(
                f"{name}, {of}: {1000 * reported[f'plain_{part}_s'] / reported['rows']:.2f} ms a row; "
                f"isolation {mean:+.1%}, "
                f"95 % interval {mean - half:+.1%} to {mean + half:+.1%} over {pairs} pairs",
                flush=True,
            )
        start_s, own_mb = reported["start_s"] / reported["workers"], reported["own_bytes"] / reported["workers"] / 1e6
        print(f"{name}: a child starts in {start_s:.1f} s and takes {own_mb:.0f} MB", flush=True)


def _pair(name: str) -> dict[str, float]:
    """The sums of what every core's worker found."""
    cores = len(os.sched_getaffinity(0))
    fresh = multiprocessing.get_context("spawn")
    together = fresh.Barrier(cores, timeout=_PATIENCE_S)
    with ProcessPoolExecutor(cores, fresh, _join, (together,)) as workers:
        found = list(workers.map(_worker, [name] * cores))
    return {key: sum(each[key] for each in found) for key in found[0]}


class Either(DecodeStage):
    """Decodes what it is given; given ``ALONE``, decodes and encodes tables of its own and returns the seconds."""

    def __init__(self, settings: PipelineConfig, features: tuple[BoundFeature, ...], tables: list[pa.Table]) -> None:
        super().__init__(settings, features)
        self.tables = tables
        self.encode = EncodeStage(settings, features)

    def setup(self) -> None:
        super().setup()
        self.encode.setup()

    def __call__(self, table: pa.Table) -> pa.Table:
        if table.schema != ALONE.schema:
            return self._shaken(table)
        context = self.context
        self.context = StageContext()
        try:
            return pa.table([*np.transpose([self._alone(one) for one in self.tables])], names=["decoding", "all"])
        finally:
            self.context = context

    def _shaken(self, table: pa.Table) -> pa.Table:
        self.before = [bytearray(random.randrange(1 << 12, 1 << 18)) for _ in range(4)]
        return super().__call__(table)

    def _alone(self, table: pa.Table) -> tuple[float, float]:
        started = time.process_time()
        done = self._shaken(table)
        decoded = time.process_time()
        self.encode(done)
        return decoded - started, time.process_time() - started


def _join(together: Barrier) -> None:
    global _together
    _together = together


def _worker(name: str) -> dict[str, float]:
    """Both ways through the same tables, and what the child takes."""
    allocator.keep_pages()
    files, feature, window, blocks = CASES[name]
    settings, features, tables = _work(files, {**RAW, **feature}, window, blocks)
    isolated = SandboxedStage(Either(settings, features, tables), LimitsConfig())
    started = time.perf_counter()
    isolated.setup()
    start_s = time.perf_counter() - started
    encode = EncodeStage(settings, features)
    encode.setup()
    least = {one: np.full((2, len(tables)), np.inf) for one in ("plain", "isolated")}
    for turn in range(1 + ROUNDS):
        for one in ("plain", "isolated") if turn % 2 else ("isolated", "plain"):
            _together.wait()
            if one == "plain":
                alone = isolated(ALONE)
                seconds = np.array([alone["decoding"], alone["all"]])
            else:
                seconds = np.transpose([_seconds(isolated, encode, table) for table in tables])
            if turn:  # the first warms up
                least[one] = np.minimum(least[one], seconds)
    own_bytes = _own_bytes(isolated)
    isolated.close()
    return {
        **{f"{one}_decoding_s": float(parts[0].sum()) for one, parts in least.items()},
        **{f"{one}_all_s": float(parts[1].sum()) for one, parts in least.items()},
        "rows": sum(map(len, tables)),
        "start_s": start_s,
        "own_bytes": own_bytes,
        "workers": 1,
    }


def _work(
    files: str, feature: dict[str, Any], window: dict[str, Any], blocks: int
) -> tuple[PipelineConfig, tuple[BoundFeature, ...], list[pa.Table]]:
    """The rows that a probe cuts the files into, in blocks."""
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
    return settings, features, [rows.slice(at * BLOCK_ROWS, BLOCK_ROWS) for at in range(blocks)]


def _seconds(isolated: SandboxedStage, encode: EncodeStage, table: pa.Table) -> tuple[float, float]:
    """CPU seconds of both processes: until the rows are decoded, and until their columns are made."""
    started = _cpu_s(isolated)
    done = isolated(table)
    decoded = _cpu_s(isolated)
    encode(done)
    return decoded - started, _cpu_s(isolated) - started


def _cpu_s(isolated: SandboxedStage) -> float:
    assert isolated.child is not None
    of_the_child = (~isolated.child.process.pid << 3) | 2  # the clock of another process: man clock_getcpuclockid
    return time.process_time() + time.clock_gettime(of_the_child)


def _own_bytes(isolated: SandboxedStage) -> int:
    assert isolated.child is not None
    return isolated.child.memory.anonymous_bytes()


if __name__ == "__main__":
    from tests.measure import isolation_cost  # by this name the children find it too

    isolation_cost.main()
