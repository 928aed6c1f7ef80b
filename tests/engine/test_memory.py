"""The memory of processes, each counted once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import bounded

METER = """
import contextlib, subprocess, sys, time
from pipeline.engine.memory import MemoryMeter, memory_of_processes

@contextlib.contextmanager
def child(code, *args):  # a process that has run the code and waits until the block ends
    script = f"import sys\\n{code}\\nprint('ready', flush=True)\\nsys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script, *args], **pipes) as process:
        assert process.stdout.readline() == "ready\\n"
        yield

def settled():
    with MemoryMeter(0.02) as meter:
        time.sleep(0.1)
    return meter.peak

before = settled()
"""
"""The meter counts all children, so it is tested in a process of its own: a test process has those of other tests."""


def test_memory_of_children_counts_and_the_peak_stays() -> None:
    code = """
with MemoryMeter(0.02) as meter:
    with child("held = bytearray(b'x') * 200_000_000"):
        time.sleep(0.3)
    time.sleep(0.2)
print(meter.peak - before, settled() - before)
"""
    peak, after = map(int, bounded.run(METER + code).out.split())
    assert 190e6 < peak < 400e6
    assert after < 100e6


def test_memory_of_processes_that_are_no_children_counts_too() -> None:
    """Those of isolated stages are forked by another process."""
    code = """
other = int(sys.argv[1])
print(memory_of_processes([other]) - memory_of_processes(), memory_of_processes([2**22 + 1]) - memory_of_processes())
"""
    hold = "held = bytearray(b'x') * 200_000_000; print('ready', flush=True); input()"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with_it, of_none = map(int, bounded.run(METER + code, process.pid).out.split())
        process.communicate("\n")
    assert 190e6 < with_it < 400e6
    assert abs(of_none) < 50e6


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.write_bytes(bytes(400_000_000))
    code = """
touch = "import mmap; file = open(sys.argv[1], 'r+b'); held = mmap.mmap(file.fileno(), 0)\\n" \\
    "for page in range(0, len(held), 4096): held[page]"
with MemoryMeter(0.02) as meter, child(touch, sys.argv[1]), child(touch, sys.argv[1]), child(touch, sys.argv[1]):
    time.sleep(0.3)
print(meter.peak - before)
"""
    assert int(bounded.run(METER + code, path).out) < 600e6  # not 1200e6
