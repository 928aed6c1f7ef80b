"""What metrics cost: `python -m tests.measure.metrics_cost [--engine local] [--pairs 12] [--copies 1500]`.

Extracts the same pictures with and without metrics in turn, in one process, so that nothing is imported twice. With
metrics a port is open and read every second, which is fifteen times as often as Prometheus does, and a text file is
written; on `ray` the workers report to the agent of their node. Prints the seconds of a run and the CPU seconds of all
its processes with metrics / without them: the median of the pairs, and the 95 % interval of their mean. CPU seconds are
not printed for `ray`, whose workers end at other times than runs. Last, the CPU seconds that threads spent in the
functions of metrics / all: other work of the machine does not change it much. Needs `make setup`.

The models are those of the demo, which take a millisecond for a picture: with larger ones the cost is less.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline import config as configs
from pipeline import run
from pipeline.run import fork_server as fork_servers
from pipeline.telemetry import _metrics_server, recording
from pipeline.telemetry.prometheus import PrometheusExporter
from tests.infra.prometheus_server import free_port
from tests.support import ROOT
from tests.support.exposition import read

MODELS = ROOT / ".demo" / "models"
STUDENT = 2.3
"""Student's t for 95 % of ten pairs; for more, on the safe side."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("local", "ray", "inline"), default="local")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--copies", type=int, default=1500, help="pictures of a run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-metrics-") as name:
        folder = Path(name)
        corpus(folder / "in", asked.copies)
        with fork_servers.started(settings(folder, {}), asked.engine) as fork_server:
            found = pairs(folder, asked.engine, asked.pairs, fork_server)
    rows = asked.copies / statistics.median(one["wall"] for one, _ in found)
    print(f"{asked.engine}: {asked.pairs} pairs of runs of {asked.copies} pictures, {rows:.0f} rows/s without metrics")
    for what in ("wall",) if asked.engine == "ray" else ("wall", "cpu"):
        ratios = [with_metrics[what] / without[what] for without, with_metrics in found]
        mean = statistics.mean(ratios)
        half = STUDENT * statistics.stdev(ratios) / math.sqrt(len(ratios))
        words = f"median {statistics.median(ratios):.4f}, mean {mean:.4f} ({mean - half:.4f} to {mean + half:.4f})"
        print(f"{what:4} seconds with metrics / without: {words}; pairs {min(ratios):.3f} to {max(ratios):.3f}")
    if asked.engine != "ray":
        shares = [one["own"] / one["cpu"] for _, one in found]
        print(f"own CPU seconds / all: median {statistics.median(shares):.4f}, at most {max(shares):.4f}")


def corpus(folder: Path, copies: int) -> None:
    """Pictures of noise, 224 x 224; one of a hundred is broken."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(20):
        pixels = random.integers(0, 255, (28, 28, 3), np.uint8)
        Image.fromarray(pixels).resize((224, 224)).save(folder / f"own{number}.jpg")
    for number in range(copies - 20):
        shutil.copy(folder / f"own{number % 20}.jpg", folder / f"copy{number}.jpg")
    for number in range(copies // 100):
        (folder / f"copy{number}.jpg").write_bytes(b"\xff\xd8nothing")


def settings(folder: Path, metrics: dict[str, Any]) -> configs.PipelineConfig:
    feature = {
        "modality": "image",
        "tokenizer": {"kind": "patch"},
        "encoder": {"kind": "clip", "checkpoint": str(MODELS / "clip")},
    }
    return configs.parse(
        {
            "source": {"kind": "files", "path": str(folder / "in")},
            "output": {"path": str(folder / "out")},
            "features": {"picture": feature},
            "metrics": metrics,
        }
    )


def pairs(folder: Path, engine: Any, count: int, fork_server: Any) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Measures so many pairs, (without, with metrics), in turns; the first pair warms up and does not count."""
    found = []
    for number in range(count + 1):
        port = free_port()
        on = {"port": port, "textfile": str(folder / "t.prom")}
        measured: dict[bool, dict[str, float]] = {}
        for is_on in (False, True) if number % 2 else (True, False):
            shutil.rmtree(folder / "out", ignore_errors=True)
            bound = run.prepare(settings(folder, on if is_on else {"ray": False}), False, fork_server, engine)
            with scraped(port) if is_on else contextlib.nullcontext(), accounted() as own:
                started, cpu = time.perf_counter(), cpu_s()
                run.extract(bound, show_progress=False)
                measured[is_on] = {"wall": time.perf_counter() - started, "cpu": cpu_s() - cpu, "own": sum(own)}
        if number:
            found.append((measured[False], measured[True]))
    return found


@contextlib.contextmanager
def accounted() -> Iterator[list[float]]:
    """Supplies the CPU seconds of each call of a function of metrics, in whatever thread."""
    own: list[float] = []

    def timed(call: Any) -> Any:
        def timed_call(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                own.append(time.thread_time() - started)

        return timed_call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (recording, "count_table"),
            (recording, "count_files"),
            (PrometheusExporter, "__enter__"),
            (PrometheusExporter, "close"),
            (_metrics_server._Handler, "handle"),
        ):
            patch.setattr(owner, name, timed(getattr(owner, name)))
        yield own


@contextlib.contextmanager
def scraped(port: int) -> Iterator[None]:
    """Reads the port every second."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(1.0):
            with contextlib.suppress(OSError):
                read(f"http://127.0.0.1:{port}/metrics")

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def cpu_s() -> float:
    """Returns the CPU seconds of this process and its children, also of those that have ended."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
