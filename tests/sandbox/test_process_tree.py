"""What a decoder starts ends with the decoder: its children, and theirs, in whatever session they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.sandbox import ForkServer, LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from pipeline.sandbox.process_tree import descendants, kill_group, kill_tree
from tests.sandbox import plain_stages
from tests.sandbox.plain_stages import Starter
from tests.support import ROOT


@pytest.fixture(params=["subprocess", "fork"])
def address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Of a fork server, or None: both ways to start a child."""
    if request.param == "subprocess":
        yield None
        return
    with ForkServer(plain_stages.prepare, "colorsys") as server:
        server.prepared()
        yield server.address


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ends(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not _runs(pid):
            return True
        time.sleep(0.02)
    return False


def _assert_reported(path: Path) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError("the program did not start")


@pytest.mark.parametrize("how", ["child", "orphan"])
def test_a_timeout_ends_what_the_decoder_started(tmp_path: Path, address: str | None, how: str) -> None:
    stage = SandboxedStage(Starter(str(tmp_path / "pid")), LimitsConfig(row_seconds=1.0), ProcessOptions(address))
    stage.setup()
    done = stage(pa.table({"do": [how, ""], "then": ["spin", ""]}))
    assert len(done) == 2
    assert [kind for kind, _ in stage.refused.values()] == ["timeout"]
    assert _ends(_assert_reported(tmp_path / "pid"))
    stage.close()


@pytest.mark.parametrize("how", ["child", "orphan"])
def test_so_does_its_end(tmp_path: Path, address: str | None, how: str) -> None:
    stage = SandboxedStage(Starter(str(tmp_path / "pid")), LimitsConfig(), ProcessOptions(address))
    stage(pa.table({"do": [how], "then": [""]}))
    assert _runs(_assert_reported(tmp_path / "pid"))
    stage.close()
    assert _ends(_assert_reported(tmp_path / "pid"))


def test_so_does_a_crash(tmp_path: Path, address: str | None) -> None:
    """Of an orphan in a session of its own only a fork server learns, which becomes its parent."""
    for how in ("child", "orphan") if address else ("child",):
        reported = tmp_path / how
        stage = SandboxedStage(Starter(str(reported)), LimitsConfig(), ProcessOptions(address))
        stage(pa.table({"do": [how], "then": ["abort"]}))
        assert [kind for kind, _ in stage.refused.values()] == ["crash"]
        assert _ends(_assert_reported(reported))
        stage.close()


@pytest.mark.parametrize("how", ["child", "orphan"])
def test_a_fork_server_ends_it_where_who_asked_was_killed(tmp_path: Path, how: str) -> None:
    with ForkServer(plain_stages.prepare, "colorsys") as server:
        server.prepared()
        program = [sys.executable, "-m", "tests.sandbox.programs.start_descendants"]
        asker = subprocess.Popen([*program, str(tmp_path / "pid"), server.address, how], cwd=ROOT)
        pid = _assert_reported(tmp_path / "pid")
        asker.kill()
        asker.wait()
        assert _ends(pid)


def test_a_fork_server_takes_all_of_it_along(tmp_path: Path) -> None:
    server = ForkServer(plain_stages.prepare, "colorsys")
    stage = SandboxedStage(Starter(str(tmp_path / "pid")), LimitsConfig(), ProcessOptions(server.address))
    stage(pa.table({"do": ["orphan"], "then": [""]}))
    server.close()
    assert _ends(_assert_reported(tmp_path / "pid"))


def test_a_child_has_no_terminal_and_a_group_of_its_own(tmp_path: Path, address: str | None) -> None:
    stage = SandboxedStage(Starter(str(tmp_path / "pid")), LimitsConfig(), ProcessOptions(address))
    stage(pa.table({"do": ["child"], "then": [""]}))
    assert stage.child is not None
    pid = stage.child.process.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert descendants(pid) == {_assert_reported(tmp_path / "pid")}
    stage.close()


def test_a_process_that_leads_no_group_takes_no_other_along() -> None:
    bystander, process = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    kill_group(process.pid)
    assert process.poll() is None
    kill_tree(process.pid, process.send_signal)
    assert process.wait(5) == -9
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_one_that_is_gone_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()

    def send(number: int) -> None:
        raise ProcessLookupError(number)

    kill_tree(process.pid, send)
    assert descendants(process.pid) == set()


def test_a_kernel_that_lists_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    original = open

    def unlisted(path: str, *rest: object, **options: object) -> object:
        if str(path).endswith("/children"):
            raise FileNotFoundError(path)
        return original(path, *rest, **options)  # type: ignore[call-overload]

    process = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    while not (found := descendants(process.pid)):
        time.sleep(0.02)
    monkeypatch.setattr(builtins, "open", unlisted)
    assert descendants(process.pid) == found
    monkeypatch.undo()
    kill_tree(process.pid, process.send_signal)
    assert process.wait(5) == -9
    assert all(_ends(pid) for pid in found)
