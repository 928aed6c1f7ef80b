"""A function in a process of its own: its value, its error, its end; and nothing of it stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.benchmark.fresh_process import in_fresh_process, in_fresh_processes, on_gpu, one_thread
from pipeline.core.errors import ConfigError, SampleError, TesseraError
from tests.benchmark.measured import picture
from tests.stages.media_fixtures import IMAGE, config

MODULE = sys.modules["pipeline.benchmark.fresh_process"]
NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def about_itself(*words: str, last: str) -> tuple[int, list[str | None], str]:
    return os.getpid(), [os.environ.get(name) for name in NAMES], " ".join([*words, last])


def alone_for_a_second() -> tuple[int, float, float]:
    begun = time.time()
    time.sleep(1)
    return os.getpid(), begun, time.time()


def talk() -> None:
    print("noise", flush=True)
    os.write(1, b"noise\n")
    os.write(2, b"noise\n")


def refuse(kind: str) -> None:
    if kind == "config":
        raise ConfigError("features.x", "found", "allowed")
    if kind == "sample":
        raise SampleError("corrupt", "its words")
    raise ZeroDivisionError("by design")


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_gives_the_value_of_another_process_with_one_thread() -> None:
    pid, threads, words = in_fresh_process("a test", about_itself, "a", "b", last="c")
    assert pid != os.getpid()
    assert threads == ["1", "1", "1"]
    assert words == "a b c"
    assert not psutil.pid_exists(pid)


def test_several_begin_together() -> None:
    found = in_fresh_processes("a test", 3, alone_for_a_second)
    assert len({pid for pid, _, _ in found}) == 3
    assert max(begun for _, begun, _ in found) < min(ended for _, _, ended in found)


def test_one_of_several_that_dies_is_told() -> None:
    with pytest.raises(TesseraError, match=r"^the process of a test died: "):
        in_fresh_processes("a test", 2, kill_itself)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("config", ConfigError("features.x", "found", "allowed")),
        ("sample", SampleError("corrupt", "its words")),
        ("other", ZeroDivisionError("by design")),
    ],
)
def test_it_raises_what_the_function_raises(kind: str, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        in_fresh_process("a test", refuse, kind)
    assert str(raised.value) == str(error)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(TesseraError, match=r"^the process of a test died: .*source\.exclude"):
        in_fresh_process("a test", kill_itself)


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_TIMEOUT_S", 3.0)
    started = time.monotonic()
    with pytest.raises(TesseraError, match=r"^the process of a test did not end in 3 s"):
        in_fresh_process("a test", time.sleep, 100)
    assert time.monotonic() - started < 60
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not [command for command in commands if "spawn_main" in command]


@pytest.mark.parametrize("function", [about_itself, kill_itself])
def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with pytest.raises((TypeError, TesseraError)):
        in_fresh_process("a test", function)  # type: ignore[arg-type]
    assert dict(os.environ) == before


def test_what_it_writes_to_the_terminal_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    in_fresh_process("a test", talk)
    assert capfd.readouterr() == ("", "")


def test_libraries_that_are_here_already_take_one_thread() -> None:
    import pyarrow as pa
    import torch

    torch.set_num_threads(2)
    pa.set_cpu_count(2)
    one_thread()
    assert (torch.get_num_threads(), pa.cpu_count()) == (1, 1)


def test_what_encodes_on_a_gpu(tmp_path: Path, models: Path) -> None:
    import torch

    auto = picture(models)
    auto["encoder"]["device"] = "auto"
    assert not on_gpu(config(tmp_path, {"i": IMAGE}))
    assert not on_gpu(config(tmp_path, {"i": IMAGE, "p": picture(models)}))
    assert on_gpu(config(tmp_path, {"i": IMAGE, "p": auto})) is torch.cuda.is_available()
