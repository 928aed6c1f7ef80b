"""Child processes and the memory of this process tree, for the programs of this folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from pipeline.engine.memory import MemoryMeter


@contextlib.contextmanager
def child_process(module: str, *args: object) -> Iterator[None]:
    """Runs a module as a child process, which has printed "ready" when the block begins and ends with the block."""
    command = [sys.executable, "-m", module, *map(str, args)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield


def used_bytes() -> int:
    """Memory of this process and its children, now."""
    with MemoryMeter(0.02) as meter:
        time.sleep(0.1)
    return meter.peak
