"""A call in a thread gives its result or its error, and does not hold the program."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pipeline.core.system.daemon_thread import in_thread


def test_results_and_errors() -> None:
    assert in_thread(lambda: 7, "a").result(timeout=5) == 7
    with pytest.raises(KeyError, match="x"):
        in_thread(lambda: {}["x"], "a").result(timeout=5)
    with pytest.raises(TimeoutError):
        in_thread(lambda: time.sleep(2), "a").result(timeout=0.05)


def test_the_program_ends_without_it() -> None:
    program = (
        "import time\nfrom pipeline.core.system.daemon_thread import in_thread\nin_thread(lambda: time.sleep(60), 'a')"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert time.monotonic() - started < 30
