"""Memory of this process and its children."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

import psutil


class MemoryMeter:
    """Peak of the memory of this process and its children (a local cluster is among them), in bytes.

    Shared memory (the object store) is counted once, as the largest share that any process maps.
    On a remote cluster it sees the driver only.
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
    """Returns the bytes that this process and its children take, shared memory counted once.

    Args:
        others: processes of this one that are no children of it, and theirs.
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
