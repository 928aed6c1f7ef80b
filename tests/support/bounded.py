"""Python code in a process of its own, whose memory is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from tests.support import ROOT

_TAIL = """
with open("/proc/self/status") as status:  # getrusage would count what this process had before it was another
    print("PEAK", *(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Done:
    out: str
    """What it printed."""
    peak_mb: int
    """Of its resident memory."""


def run(code: str, *args: object, timeout: float = 120, address_space: int = 24 << 30) -> Done:
    """Run ``code``, with ``args`` as ``sys.argv[1:]``. Fails if the code does.

    Args:
        address_space: what the process may map, so that a defect does not take the machine's memory.
    """
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({address_space}, {address_space}))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + code + _TAIL, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out, _, peak = done.stdout.rpartition("PEAK")
    return Done(out.strip(), int(peak))
