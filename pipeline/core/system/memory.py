"""The memory that this process and its children may use."""

from __future__ import annotations

import os
from contextlib import suppress

from pipeline.core.system import cgroups


def available_memory() -> int:
    """Returns the bytes of memory: the least of the machine's and of the limits of the process's cgroups."""
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits(), 1 << 62)


def _limits() -> list[int]:
    """Returns the memory limits, in bytes, of the cgroup of this process and of those above it."""
    found = []
    for folder in cgroups.folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of cgroups v2, "max" for none, and v1
            with suppress(OSError, ValueError):
                found.append(int((folder / name).read_text()))
    return found
