"""The process itself: it ends with its parent, prints nothing, and returns what its stage raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError, TesseraError
from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.worker import portable
from tests.sandbox.plain_stages import Plain
from tests.support import ROOT, faulty


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("at_work", "end"), [("", signal.SIGKILL), ("gil", signal.SIGKILL), ("spin", signal.SIGTERM), ("", None)]
)
def test_it_ends_with_its_parent(at_work: str, end: signal.Signals | None) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.sandbox.programs.start_worker", at_work],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    assert Path(f"/proc/{pid}").exists()
    if end is None:
        parent.stdin.close()
    else:
        parent.send_signal(end)
    parent.wait(10)
    assert _gone(pid)


def test_the_terminal_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    stage = SandboxedStage(Plain(), LimitsConfig())
    stage(pa.table({"do": ["", ""]}))
    stage.close()
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_is_the_parent_s_to_handle() -> None:
    stage = SandboxedStage(Plain(), LimitsConfig())
    stage.setup()
    assert stage.child is not None
    pid = stage.child.process.pid
    os.kill(pid, signal.SIGINT)
    assert stage(pa.table({"do": ["pid"]}))["pid"].to_pylist() == [pid]


def test_what_the_stage_raises_as_a_whole_is_raised() -> None:
    stage = SandboxedStage(Plain(), LimitsConfig())
    with pytest.raises(ValueError, match="a defect"):
        stage(pa.table({"do": ["raise"]}))
    assert len(stage(pa.table({"do": [""]}))) == 1


def test_storage_that_the_parent_registered_is_known() -> None:
    faulty.register()
    stage = SandboxedStage(Plain(), LimitsConfig())
    assert stage(pa.table({"do": ["storage"]}))["is"].to_pylist() == ["FaultyFileSystem"]


def test_errors_that_do_not_pickle_are_told_in_words() -> None:
    class Odd(Exception):
        pass

    reported = portable(Odd("why"))
    assert isinstance(reported, TesseraError)
    assert str(reported) == "Odd: why"
    error = ConfigError("a", "b", "c")
    assert portable(error) is error
