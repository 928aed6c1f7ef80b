"""The display counts what is done, the meter sees children's memory, and native chatter stays off the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pyarrow as pa

from pipeline.progress import MemoryMeter, Progress, quiet
from pipeline.stages.rows import Failure, failure_column


def test_counts() -> None:
    table = pa.table(
        {"final": [False, True, True], "failures": failure_column([[], [Failure("f", None, "decode", "io", "x")], []])}
    )
    assert Progress.count(table) == (2, 3, 1)


def test_first_row_is_timed(ray_session: Any) -> None:
    progress = Progress(4, None)
    with progress:
        ray_session.get(progress.actor.add.remote(2, 5, 1))
        time.sleep(1)
    assert progress.first_row_s is not None
    assert 0 < progress.first_row_s < 30


def test_the_meter_sees_a_childs_memory() -> None:
    code = (
        "import time; x = bytearray(500_000_000); x[::4096] = b'1' * len(x[::4096]); "
        "print('up', flush=True); time.sleep(9)"
    )
    with MemoryMeter(every_s=0.1) as meter:
        time.sleep(0.3)
        before = meter.peak
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.5)
            child.kill()
    assert meter.peak - before > 350_000_000


def test_native_chatter_is_hidden_and_stderr_comes_back() -> None:
    code = (
        "import os, sys\nfrom pipeline.progress import quiet\n"
        "with quiet() as terminal:\n"
        "    os.write(2, b'chatter')\n    print('shown', file=terminal, flush=True)\n"
        "os.write(2, b'after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "shown\nafter"


def test_quiet_leaks_no_file(tmp_path: object) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with quiet():
        pass
    assert len(os.listdir("/proc/self/fd")) == before
