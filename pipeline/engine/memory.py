"""Measures the memory of this process and its children."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

import psutil


class MemoryMeter:
    """Records the peak memory of this process and its children, in bytes, while it is open. A context manager.

    Children include a local cluster. Shared memory (the object store) counts once, as the most that any process maps.
    On a remote cluster only the driver is measured.

    Args:
        every_s: seconds between two measurements.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s, self.peak = every_s, 0
        self._stop = threading.Event()

    def __enter__(self) -> MemoryMeter:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._now())
            if self._stop.wait(self.every_s):
                return

    def _now(self) -> int:
        return memory_of_processes()


def memory_of_processes(others: Iterable[int] = ()) -> int:
    """Returns the bytes of memory of this process and its children. Shared memory counts once.

    Args:
        others: ids of further processes, measured with their children.
    """
    own, shared = 0, 0
    found: dict[int, psutil.Process] = {}
    for pid in (os.getpid(), *others):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    for process in found.values():
        try:
            info = process.memory_info()
        except psutil.Error:
            continue
        own += info.rss - info.shared
        shared = max(shared, info.shared)
    return own + shared
