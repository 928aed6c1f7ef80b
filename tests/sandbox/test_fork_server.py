"""Processes fork from one that has done their imports; they are started, given work and ended like spawned ones."""

from __future__ import annotations

import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError, TesseraError
from pipeline.sandbox import ForkServer, LimitsConfig, SandboxedStage
from pipeline.sandbox.fork_server import ForkedProcess, _process_state
from pipeline.sandbox.process import MapResult, ProcessOptions, WorkerExit, WorkerProcess
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import TaskPolicy
from tests.sandbox import plain_stages
from tests.sandbox.plain_stages import Plain
from tests.support import ROOT


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with ForkServer(plain_stages.prepare, "colorsys") as started:
        yield started


def _malloc_gets_huge_pages() -> bool:
    """Whether this machine gives huge pages to a glibc that asks for them, and has one that can ask."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    name, version = platform.libc_ver()
    is_new = name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return is_new and setting.exists() and "[madvise]" in setting.read_text(encoding="ascii")


def test_it_tells_what_was_prepared_or_what_was_wrong() -> None:
    with ForkServer(plain_stages.prepare, "colorsys") as good:
        assert good.prepared() == ("colorsys", good.process.pid)
    with (
        ForkServer(plain_stages.prepare, "wrong") as bad,
        pytest.raises(ConfigError, match=r"^a\.b: found wrong; right$"),
    ):
        bad.prepared()
    with ForkServer(plain_stages.prepare, "abort") as dead, pytest.raises(TesseraError, match="ended: is memory short"):
        dead.prepared()


def test_what_it_forks_has_its_imports_and_who_asks_its_surroundings(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.prepared()
    monkeypatch.setenv("TESSERA_TEST", "asker's")
    monkeypatch.chdir(tmp_path)
    stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(server.address))
    asked = pa.table({"do": ["pid", "modules"]})
    started = time.monotonic()
    reported = stage(asked)
    assert time.monotonic() - started < 4.0
    assert stage.child is not None
    assert isinstance(stage.child.process, ForkedProcess)
    pid = reported["pid"][0].as_py()
    assert psutil.Process(pid).ppid() == server.process.pid
    assert psutil.Process(pid).name() == "tessera-plain"
    assert reported["colorsys"][0].as_py()
    assert not reported["pandas"][0].as_py()
    assert reported["numpy.ma"][0].as_py(), "the first numpy array would import it"
    assert reported["huge"][0].as_py() == _malloc_gets_huge_pages()
    assert reported["collects"][0].as_py(), "garbage is collected in workers"
    assert reported["environment"][0].as_py() == "asker's"
    assert reported["folder"][0].as_py() == str(tmp_path)
    stage.close()
    assert not psutil.pid_exists(pid)
    assert not server.process.poll()


def test_the_user_s_settings_of_glibc_come_after_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    with ForkServer(plain_stages.prepare, "colorsys") as server:
        server.prepared()
        stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(server.address))
        assert not stage(pa.table({"do": ["modules"]}))["huge"][0].as_py()
        stage.close()


def test_how_it_ended_is_told(server: ForkServer) -> None:
    for what, words in (("abort", "died (SIGABRT)"), ("exit", "ended itself (exit code 3)")):
        child = WorkerProcess(Plain(), LimitsConfig(), BufferPool(), ProcessOptions(server.address))
        assert isinstance(child.map(pa.table({"do": [""]}), TaskPolicy()), MapResult)
        death = child.map(pa.table({"do": [what]}), TaskPolicy())
        assert death == WorkerExit(None, "crash", f"the decoder's process {words}", over_limit=False)
        assert not child.alive


def test_one_that_cannot_start_is_an_error_in_its_own_words(server: ForkServer) -> None:
    with pytest.raises(TesseraError, match=r"cannot start: libcodec.so.9: cannot open shared object file$"):
        WorkerProcess(Plain("abort"), LimitsConfig(), BufferPool(), ProcessOptions(server.address))
    with pytest.raises(ImportError, match="no module named 'codec'"):
        WorkerProcess(Plain("raise"), LimitsConfig(), BufferPool(), ProcessOptions(server.address))


def test_many_at_once_do_not_hold_one_another(server: ForkServer) -> None:
    """Each has a channel of its own: the first to be closed ends alone."""
    stages = [SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(server.address)) for _ in range(3)]
    pids = [stage(pa.table({"do": ["pid"]}))["pid"][0].as_py() for stage in stages]
    assert len(set(pids)) == 3
    stages[0].close()
    assert [psutil.pid_exists(pid) for pid in pids] == [False, True, True]
    assert stages[1](pa.table({"do": ["pid"]}))["pid"][0].as_py() == pids[1]


def test_it_ends_with_who_asked_for_it_even_while_it_hangs(server: ForkServer) -> None:
    command = [sys.executable, "-m", "tests.sandbox.programs.start_worker", "gil", server.address]
    asker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert asker.stdout is not None
    pid = int(asker.stdout.readline())
    time.sleep(0.3)
    assert psutil.pid_exists(pid)
    asker.kill()
    asker.wait()
    assert _ends(pid)


def test_without_a_fork_server_a_process_starts_by_itself(server: ForkServer) -> None:
    stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(server.address))
    pid = stage(pa.table({"do": ["pid"]}))["pid"][0].as_py()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert _ends(pid)
    again = stage(pa.table({"do": ["pid", "modules"]}))
    assert psutil.Process(again["pid"][0].as_py()).ppid() == os.getpid()
    assert not again["pandas"][0].as_py()
    assert again["collects"][0].as_py()
    stage.close()


def test_a_large_environment_and_the_asker_s_standing_go_with_it(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is to end a decoder before the actor that it decodes for."""
    monkeypatch.setenv("TESSERA_LARGE", "x" * 120_000)
    command = [sys.executable, "-m", "tests.sandbox.programs.print_inherited_priority", server.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lowered = os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert done.stdout.split() == ["700", str(lowered), "ForkedProcess"]


def test_who_asks_for_nothing_gets_nothing_and_holds_nobody_up(server: ForkServer) -> None:
    silent, empty = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    for one in (silent, empty):
        one.connect(server.address)
    empty.send(b"?")
    stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(server.address))
    stage.setup()
    assert stage.child is not None
    assert isinstance(stage.child.process, ForkedProcess)
    assert empty.recv(16) == b""
    stage.close()
    for one in (silent, empty):
        one.close()


def test_what_an_import_prints_is_no_part_of_the_answer() -> None:
    with ForkServer(plain_stages.prepare, "this") as started:
        assert started.prepared() == ("this", started.process.pid)


def test_a_process_with_threads_does_not_fork() -> None:
    with ForkServer(plain_stages.prepare, "threads") as started:
        started.prepared()
        stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(started.address))
        stage.setup()
        assert stage.child is not None
        assert not isinstance(stage.child.process, ForkedProcess)
        stage.close()


def test_nobody_else_can_ask_it(server: ForkServer) -> None:
    folder = Path(server.folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.close()
    assert not folder.exists()


def _ends(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_the_state_that_a_process_inherits_has_the_umask() -> None:
    before = os.umask(0o027)
    try:
        assert _process_state({})[-1] == 0o027
    finally:
        assert os.umask(before) == 0o027
