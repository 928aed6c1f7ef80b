"""A worker process is started, watched and ended; its errors are raised in its own words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from pipeline.core.errors import TesseraError
from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.process import MapResult, WorkerExit, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import TaskPolicy
from tests.sandbox.plain_stages import Plain
from tests.support import ROOT


def test_a_child_that_cannot_start_is_an_error_in_its_own_words() -> None:
    with pytest.raises(TesseraError, match=r"cannot start: libcodec.so.9: cannot open shared object file$"):
        WorkerProcess(Plain("abort"), LimitsConfig(), BufferPool())
    with pytest.raises(ImportError, match="no module named 'codec'"):
        WorkerProcess(Plain("raise"), LimitsConfig(), BufferPool())


def test_a_start_that_is_killed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[list[str]] = []
    original = subprocess.Popen

    def counted(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        starts.append(command)
        return original(command, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", counted)
    with pytest.raises(TesseraError, match="cannot start"):
        WorkerProcess(Plain("kill"), LimitsConfig(), BufferPool())
    assert len(starts) == 3


def test_how_it_ended_is_told() -> None:
    child = WorkerProcess(Plain(), LimitsConfig(), BufferPool())
    done = child.map(pa.table({"do": [""]}), TaskPolicy())
    assert isinstance(done, MapResult)
    death = child.map(pa.table({"do": ["abort"]}), TaskPolicy())
    assert death == WorkerExit(None, "crash", "the decoder's process died (SIGABRT)", over_limit=False)
    assert not child.alive


def test_after_an_interruption_no_answer_is_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    stage = SandboxedStage(Plain(), LimitsConfig())
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        stage.setup()
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            stage(pa.table({"do": ["wait"], "n": [1]}))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "pid" in stage(pa.table({"do": ["pid"], "n": [2]})).column_names
    stage.close()


def test_time_in_which_the_machine_stood_still_is_nobody_s() -> None:
    """Parent and child are stopped for longer than the limit while the child works."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.sandbox.programs.run_busy_row"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    both = f"-{parent.pid} -{int(parent.stdout.readline())}"  # the child leads a group of its own
    freeze = f"kill -STOP -- {both}; sleep 7; kill -CONT -- {both}"
    subprocess.run(["bash", "-c", f"sleep 0.3; {freeze}"], check=True)
    reported, _ = parent.communicate(timeout=60)
    assert reported == "[1] {}\n"
