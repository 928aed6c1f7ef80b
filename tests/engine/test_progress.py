"""The bar counts what the encoders report; memory is that of all processes; native noise stays off the terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pyarrow as pa
import pytest

from pipeline.engine.progress import Progress, quiet
from pipeline.stages.rows import Failure, failure_column
from tests.support import ROOT


def test_what_is_counted() -> None:
    broken = Failure("f", None, "decode", "corrupt", "m")
    table = pa.table(
        {
            "final": pa.array([False, True, True, None], pa.bool_()),
            "failures": failure_column([[], [broken, broken], [], [broken]]),
        }
    )
    assert Progress.count(table) == (2, 4, 2)
    assert Progress.count(table.slice(0, 0)) == (0, 0, 0)


def test_the_first_row_is_timed_without_a_terminal(ray_session: Any) -> None:
    started = time.time()
    with Progress(3, None) as progress:
        time.sleep(0.5)
        ray_session.get(progress.actor.add.remote(1, 2, 0))
        added = time.time() - started
        time.sleep(0.6)
    assert progress.first_row_at is not None
    assert 0.4 < progress.first_row_at - started < added + 0.6
    with Progress(3, None) as idle:
        pass
    assert idle.first_row_at is None


def test_a_terminal_shows_the_sums_of_all_workers(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with _terminal() as (terminal, shown), Progress(8, terminal) as progress:
        ray_session.get([progress.actor.add.remote(1, 5, 2) for _ in range(3)])
        time.sleep(1.5)
    assert "3/8 samples · 15 rows · 6 failed" in "".join(shown)


def test_one_sample_and_one_row_are_singular(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with _terminal() as (terminal, shown), Progress(1, terminal) as progress:
        ray_session.get(progress.actor.add.remote(1, 1, 0))
        time.sleep(1.5)
    assert "1/1 sample · 1 row · 0 failed" in "".join(shown)


def test_a_narrow_terminal_shows_every_figure_whole(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with _terminal() as (terminal, shown), Progress(426_000, terminal) as progress:
        ray_session.get(progress.actor.add.remote(123_456, 123_457, 12))
        time.sleep(1.5)
    text = "".join(shown)
    assert "123456/426000 samples · 123457 rows · 12 failed · " in text
    assert "…" not in text


def test_a_run_outlives_its_display(ray_session: Any) -> None:
    with Progress(3, None) as progress:
        ray_session.kill(progress.actor)
        time.sleep(0.5)


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[TextIO, list[str]]]:
    """A terminal, and what it was sent, without its control codes; it takes that at once, since its buffer is small."""
    reader, writer = pty.openpty()
    data, shown = bytearray(), list[str]()

    def drain() -> None:
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while more := os.read(reader, 1 << 16):
                data.extend(more)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        with os.fdopen(writer, "w") as terminal:
            yield terminal, shown
    finally:
        thread.join()
        os.close(reader)
        shown.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "\n"))


def test_what_native_code_prints_is_hidden_and_comes_back() -> None:
    code = """
import ctypes, sys
from pipeline.engine.progress import quiet
libc = ctypes.CDLL(None)
libc.dprintf(2, b"before\\n")
with quiet() as terminal:
    libc.dprintf(2, b"native noise\\n")
    sys.stderr.write("half a line from Python")
    print("the bar", file=terminal)
libc.dprintf(2, b"after\\n")
print("Python again", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "before\nthe bar\nafter\nPython again\n"


def test_stderr_comes_back_after_an_error_and_no_descriptor_leaks(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        with quiet():
            os.write(2, b"noise\n")
            raise RuntimeError("broke off")

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broke off"):
            broken()
    assert len(os.listdir("/proc/self/fd")) == before
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
