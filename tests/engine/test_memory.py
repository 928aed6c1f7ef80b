"""The memory of processes, each counted once.

The meter counts all children, so it runs in a process of its own: a test process has those of other tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import ROOT, bounded


def test_memory_of_children_counts_and_the_peak_stays() -> None:
    peak, after = map(int, bounded.run("tests.engine.programs.measure_child").out.split())
    assert 190e6 < peak < 400e6
    assert after < 100e6


def test_memory_of_processes_that_are_no_children_counts_too() -> None:
    """Those of isolated stages are forked by another process."""
    command = [sys.executable, "-m", "tests.engine.programs.hold_buffer", "200000000"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = bounded.run("tests.engine.programs.measure_other_process", process.pid)
        process.communicate()
    with_it, of_none = map(int, done.out.split())
    assert 190e6 < with_it < 400e6
    assert abs(of_none) < 50e6


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_bytes(bytes(400_000_000))
    assert int(bounded.run("tests.engine.programs.measure_shared_file", path).out) < 600e6  # not 1200e6
