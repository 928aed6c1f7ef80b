"""The cores that a process may use: those of its affinity mask, and the quota of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.core.system import cpus
from tests.support import ROOT


def test_the_affinity_mask_counts() -> None:
    one = str(min(os.sched_getaffinity(0)))
    script = "from pipeline.core.system.cpus import available_cpus; print(available_cpus())"
    command = ["taskset", "--cpu-list", one, sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == "1\n"
    assert 1 <= cpus.available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n", "../cpu.max": "300000 100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2),
        ({}, 64),
        ({"cpu.max": "a b c\n"}, 64),
    ],
)
def test_quotas_of_cgroups(
    in_cgroup: Callable[[dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    expected: int,
) -> None:
    in_cgroup(files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cpus.available_cpus() == expected
