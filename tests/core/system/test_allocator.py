"""A process keeps freed memory: large buffers that are allocated again cost no new pages."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

FAULTS = """
import resource, sys
from pipeline.core.system.allocator import keep_pages
if sys.argv[1] == "keep":
    keep_pages()
held = bytearray(b"x") * (24 << 20)  # glibc raises its own bound to what is freed once, but keeps a fixed one
del held
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = pages()
for _ in range(20):
    buffers = [bytearray(b"x") * (10 << 20) for _ in range(8)]
    del buffers
print(pages() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return int(done.stdout)


def test_buffers_that_come_and_go_cost_no_new_pages() -> None:
    """20 times 80 MB: 400,000 pages of 4 KiB if they are returned to the kernel, 20,000 if they are kept."""
    assert _faults("keep") < 0.2 * _faults("not")
