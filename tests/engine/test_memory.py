"""The memory of processes, each counted once.

The meter counts all children, so it runs in a process of its own: a test process has those of other tests.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import bounded


def test_memory_of_children_counts_and_the_peak_stays() -> None:
    peak, after = map(int, bounded.run("tests.engine.programs.measure_child").out.split())
    assert 190e6 < peak < 400e6
    assert after < 100e6


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_bytes(bytes(400_000_000))
    assert int(bounded.run("tests.engine.programs.measure_shared_file", path).out) < 600e6  # not 1200e6
