"""A process keeps freed memory: large buffers that are allocated again cost no new pages."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT


def _faults(how: str) -> int:
    command = [sys.executable, "-m", "tests.core.system.programs.count_page_faults", how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    return int(done.stdout)


def test_buffers_that_come_and_go_cost_no_new_pages() -> None:
    """20 times 80 MB: 400,000 pages of 4 KiB if they are returned to the kernel, 20,000 if they are kept."""
    assert _faults("keep") < 0.2 * _faults("not")
