"""Measures how much of the time GPUs computed, as their driver reports it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType

_EVERY_MS = 200
_LOOKS_BACK_S = 1.0
"""Longest time before a sample that the sample covers."""


class Busy:
    """Reads `nvidia-smi` while it is open: the part of the time before each sample in which a kernel ran."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        """(time in seconds since the epoch, part of 1), of each device in turn."""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Busy:
        which = os.environ.get("CUDA_VISIBLE_DEVICES")
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_EVERY_MS}"]
        command += [f"--id={which}"] if which else []
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:  # no such command: nothing is measured
            return self
        self._thread = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._thread.start()
        return self

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.strip().isdigit():  # a device without this figure reports [N/A]
                    self.seen.append((time.time(), int(line) / 100))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join(_EVERY_MS / 1e3)  # with a timeout: another process may hold the pipe open

    def within(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Returns the mean of all devices over ``spans`` of `time.time()`, or None if nothing was measured there.

        Only samples that cover no time outside of the spans count.
        """
        inside = [part for at, part in self.seen if any(a + _LOOKS_BACK_S <= at <= b for a, b in spans)]
        return sum(inside) / len(inside) if inside else None
