"""Runs a program in a subprocess whose memory is bounded and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from tests.support import ROOT


@dataclass(frozen=True)
class Done:
    out: str
    """What it printed."""
    peak_mb: int
    """Of its resident memory."""


def run(module: str, *args: object, timeout: float = 120, address_space: int = 24 << 30) -> Done:
    """Runs ``module`` as a program with ``args``. Fails if the program does.

    Args:
        address_space: what the process may map, so that a defect does not take the machine's memory.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.run_bounded", str(address_space), module, *map(str, args)],
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
