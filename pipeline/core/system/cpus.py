"""The CPU cores that this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress

from pipeline.core.system import cgroups


def available_cpus() -> int:
    """Returns the number of cores: the least of the affinity mask and of the quotas of the process's cgroups."""
    return max(1, min(len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in _quotas()), 1 << 20))


def _quotas() -> list[float]:
    """Returns the CPU quotas, in cores, of the cgroup of this process and of those above it."""
    found = []
    for folder in cgroups.folders("cpu"):
        with suppress(OSError, ValueError):  # cgroup v2: "max 100000" or "150000 100000"
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                found.append(int(quota) / int(period))
        with suppress(OSError, ValueError):  # cgroup v1: -1 for no quota
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                found.append(quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    return found
