"""Whole runs: `tessera extract` as a command, its processes observed from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import psutil

from pipeline.benchmark.fresh_process import on_gpu
from pipeline.benchmark.gpu_utilization import Busy
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import TesseraError
from pipeline.sandbox.fork_server import last_line

_EVERY_S = 0.5
_TITLES = {
    "tessera-probe": "probe",
    "tessera-decode": "decode",
    "tessera-encode": "encode",
    "tessera-forks": "fork server",
    "pipeline.sandbox": "other",
    "ray::MapWorker": "encode",
    "ray::MapBatches": "probe",
    "ray::Write": "write",
    "ray::IDLE": "idle",
    "ray::": "Ray",
    "default_worker.py": "idle",
    "ray/core/src/ray": "Ray",
    "ray/dashboard": "Ray",
    "ray/_private": "Ray",
    "ray/autoscaler": "Ray",
}
KINDS = ("driver", "fork server", "Ray", "probe", "decode", "encode", "write", "idle", "other")
"""What a process does, by its name or the title that Ray gives it. ``encode``: the encoders' processes and the actors
that run them. ``probe``: workers of tasks and their decoders; with a GPU also those that decode. ``idle``: workers that
wait, for example one that probes and later writes."""


@dataclass
class Wall:
    """What one run took, measured from outside and by its report."""

    rows: int
    seconds: float
    first_row_s: float
    """Seconds from the command to the first encoded row, to a quarter of a second."""
    first_shard_s: float | None
    """Seconds from the command to the first published shard."""
    peak_bytes: int
    """Peak memory of all processes. Shared memory counts once."""
    bytes_moved: int
    write_s: float
    bytes_written: int
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds by kind of process."""
    line: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """(seconds since the command, CPU seconds by kind of process until then)."""
    failed: int = 0
    gpu_busy: float | None = None
    """Part of the time from the first row on in which the GPUs computed. None: no GPU."""


def run(config: PipelineConfig, folder: str) -> Wall:
    """Runs ``tessera extract`` of ``config`` into ``folder``/dataset.

    Raises:
        TesseraError: the command failed. The message is that of the command.
    """
    config = config.model_copy(
        update={"output": config.output.model_copy(update={"path": os.path.join(folder, "dataset"), "version": "v1"})}
    )
    path = os.path.join(folder, "config.yaml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(_absolute(config.model_dump(mode="json")), file)
    started = time.time()
    with tempfile.TemporaryFile() as stderr:
        command = [sys.executable, "-m", "jobs.cli", "extract", path]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        with Busy() if on_gpu(config) else contextlib.nullcontext() as gpu_utilization:
            try:
                line, first_shard_s = _watch(process, os.path.join(folder, "dataset", "v1", "data"), started)
            finally:
                process.kill()
                process.wait()
        seconds = time.time() - started
        if process.returncode not in (0, 3):
            message = last_line(stderr).removeprefix("tessera: ")
            raise TesseraError(f"extract ended with code {process.returncode}: {message}")
    report, reported_at = _report(os.path.join(folder, "dataset", "v1", "_runs"))
    first_row_s = reported_at - started - report["seconds"] + (report["startup_seconds"] or 0.0)
    return Wall(
        rows=report["rows_planned"],
        seconds=seconds,
        first_row_s=first_row_s,
        first_shard_s=first_shard_s,
        peak_bytes=report["peak_memory_bytes"],
        bytes_moved=report["bytes_moved"],
        write_s=report["seconds_by_stage"]["write"],
        bytes_written=report["bytes_written"],
        cpu_s=line[-1][1],
        line=line,
        failed=report["rows_with_failures"],
        gpu_busy=gpu_utilization.within([(started + first_row_s, started + seconds)]) if gpu_utilization else None,
    )


def _absolute(value: Any) -> Any:
    """Returns ``value`` with absolute paths where a config file would anchor them to its own folder."""
    if isinstance(value, dict):
        return {key: _absolute(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    return os.path.abspath(value) if isinstance(value, str) and value.startswith(("./", "../")) else value


def _report(folder: str) -> tuple[dict[str, Any], float]:
    """Returns the report of the run, and when it was written. Its own clock starts after imports and checks."""
    (run_id,) = os.listdir(folder)
    path = os.path.join(folder, run_id, "report.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file), os.path.getmtime(path)


def _watch(
    process: subprocess.Popen[bytes], data: str, started: float
) -> tuple[list[tuple[float, dict[str, float]]], float | None]:
    """Returns the CPU seconds of a process and its children, twice a second, and when the first shard was published.

    What a process used since the previous measurement counts for what it does now. The last half second is missing.
    """
    driver = psutil.Process(process.pid)
    before: dict[psutil.Process, float] = {}
    spent = dict.fromkeys(KINDS, 0.0)
    line: list[tuple[float, dict[str, float]]] = [(0.0, {})]
    first_shard_s: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EVERY_S)
            return line, first_shard_s
        with contextlib.suppress(psutil.Error):
            for one in [driver, *driver.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    kind = "driver" if one == driver else _kind(one)
                    times = one.cpu_times()
                    spent[kind] += times.user + times.system - before.get(one, 0.0)
                    before[one] = times.user + times.system
        line.append((time.time() - started, {kind: round(seconds, 2) for kind, seconds in spent.items() if seconds}))
        if first_shard_s is None and os.path.isdir(data):
            published = [name for name in os.listdir(data) if name.endswith(".parquet")]
            first_shard_s = time.time() - started if published else None


def _kind(process: psutil.Process) -> str:
    """Returns one of ``KINDS``, by the name and the command line."""
    title_and_command = f"{process.name()} {' '.join(process.cmdline())}"
    return next((kind for title, kind in _TITLES.items() if title in title_and_command), "other")
