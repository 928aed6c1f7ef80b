"""The progress bar shows what is counted, and what native code prints stays off the terminal."""

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
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pytest

from pipeline.engine import progress as module
from pipeline.engine.progress import Progress, count_rows, quiet
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
    assert count_rows(table) == (2, 4, 2)
    assert count_rows(table.slice(0, 0)) == (0, 0, 0)


def test_the_first_row_is_timed_without_a_terminal() -> None:
    started, counts = time.time(), [0, 0, 0]
    with Progress(3, None, lambda: counts) as progress:
        time.sleep(0.5)
        counts[1] = 2
        added = time.time() - started
        time.sleep(0.6)
    assert progress.first_row_at is not None
    assert 0.4 < progress.first_row_at - started < added + 0.6
    assert progress.rows == 2
    with Progress(3, None, lambda: [0, 0, 0]) as idle:
        pass
    assert idle.first_row_at is None


def test_a_log_has_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.6)
    with (tmp_path / "log").open("w") as log, Progress(8, log, lambda: [2, 5, 1]) as progress:
        progress.say("node a has joined")
        time.sleep(1.6)
        assert "has joined" in (tmp_path / "log").read_text()  # at once, not at the end
    first, *lines = (tmp_path / "log").read_text().splitlines()
    assert first == "node a has joined"
    assert 1 <= len(lines) <= 3
    assert re.fullmatch(r"extract: 2/8 samples · 5 rows · 1 failed · (\d+|–) rows/s · left (0:00:\d\d|–)", lines[-1])
    Progress(8, None, lambda: [0, 0, 0]).say("nowhere")


@pytest.mark.parametrize(
    ("columns", "samples", "counts", "expected"),
    [
        (160, 8, [3, 15, 6], "3/8 samples · 15 rows · 6 failed"),
        (160, 1, [1, 1, 0], "1/1 sample · 1 row · 0 failed"),
        (80, 426_000, [123_456, 123_457, 12], "123456/426000 samples · 123457 rows · 12 failed · "),
    ],
    ids=["sums", "singular", "narrow"],
)
def test_a_terminal_shows_every_figure_whole(
    monkeypatch: pytest.MonkeyPatch, columns: int, samples: int, counts: list[int], expected: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with _terminal() as (terminal, shown), Progress(samples, terminal, lambda: counts):
        time.sleep(0.7)
    text = "".join(shown)
    assert expected in text
    assert "…" not in text


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
    command = [sys.executable, "-m", "tests.engine.programs.write_from_native_code"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
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
