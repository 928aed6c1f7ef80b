"""Measures the memory of this process and its children."""

from __future__ import annotations

from contextlib import suppress

import psutil

from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.telemetry import metrics, recording


class MemoryMeter:
    """Records the peak memory of this process and its children, in bytes, while it is open. A context manager.

    Children include a local cluster. Shared memory (the object store) counts once, as the most that any process maps.
    On a remote cluster only the driver is measured.

    Args:
        every_s: seconds between two measurements.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.peak = 0
        self._task = PeriodicTask(self._measure, every_s, "tessera-memory", at_once=True)

    def __enter__(self) -> MemoryMeter:
        self._task.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._task.close()

    def _measure(self) -> None:
        now = memory_of_processes()
        self.peak = max(self.peak, now)
        recording.set_gauge(metrics.MEMORY, now)


def memory_of_processes() -> int:
    """Returns the bytes of memory of this process and its children.

    Shared memory counts once. What forked processes share with their fork server counts in each.
    """
    own, shared = 0, 0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            info = process.memory_info()
        except psutil.Error:
            continue
        own += info.rss - info.shared
        shared = max(shared, info.shared)
    return own + shared


def peak_memory(pid: int) -> int | None:
    """Returns the most resident memory that a process has had, in bytes; None if it has ended."""
    with suppress(OSError, ValueError, StopIteration), open(f"/proc/{pid}/status", encoding="ascii") as file:
        kibibytes = next(line for line in file if line.startswith("VmHWM:")).split()[1]
        return int(kibibytes) << 10
    return None
