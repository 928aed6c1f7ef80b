"""Where a run's start goes: `python -m tests.startup CONFIG [--set ...]`.

Runs ``tessera extract`` with those arguments and looks at its processes five times a second: when each started, and its
CPU seconds. A process's last fifth of a second is not seen. Over a few files nearly all of it is start-up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

_LOOK_S = 0.2
_KINDS = {
    "pipeline.isolation.serve": "decoders' process",
    "ray::MapWorker": "actor: decode, encode",
    "ray::MapBatches(_Task)": "task worker: probe",
    "ray::Write": "task worker: write",
    "ray::_Counter": "counter of the progress",
    "ray::_StatsActor": "Ray Data's statistics",
    "ray::_Autoscaling": "Ray Data's autoscaler",
    "ray::ActorLocation": "Ray Data's actor locations",
    "gcs_server": "Ray: GCS",
    "raylet/raylet": "Ray: raylet",
    "dashboard/dashboard.py": "Ray: dashboard head",
    "DashboardAgent": "Ray: dashboard agent",
    "RuntimeEnvAgent": "Ray: runtime environments",
    "monitor": "Ray: monitors",
    "ray::IDLE": "worker without work",
}


@dataclass
class Seen:
    """A process: ``kind`` is told by the titles it had, the first of `_KINDS` among them."""

    kind: str
    started_s: float
    cpu_s: float = 0.0


def watch(arguments: list[str]) -> tuple[dict[int, Seen], float, int]:
    """What processes the run had, by id; its wall seconds and exit code."""
    started = time.time()
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "extract", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seen = {driver.pid: Seen("driver", 0.0)}
    order = ["driver", *_KINDS.values(), "other"]
    while driver.poll() is None:
        try:
            processes = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        except psutil.Error:
            break
        for one in processes:
            try:
                spent, line, at = one.cpu_times(), " ".join(one.cmdline()), one.create_time() - started
            except psutil.Error:
                continue
            found = seen.setdefault(one.pid, Seen("other", at))
            kind = next((kind for words, kind in _KINDS.items() if words in line), "other")
            found.kind = min(found.kind, kind, key=order.index)
            found.cpu_s = spent.user + spent.system
        time.sleep(_LOOK_S)
    return seen, time.time() - started, driver.wait()


def main() -> None:
    seen, seconds, code = watch(sys.argv[1:])
    for one in sorted(seen.values(), key=lambda one: one.started_s):
        print(f"{one.started_s:6.1f} s  {one.cpu_s:5.1f} s CPU  {one.kind}")
    total = sum(one.cpu_s for one in seen.values())
    print(f"{len(seen)} processes, {total:.1f} s CPU, {seconds:.1f} s on {os.cpu_count()} cores, exit code {code}")
    sys.exit(code)


if __name__ == "__main__":
    main()
