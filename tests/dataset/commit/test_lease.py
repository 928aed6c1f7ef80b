"""One writer at a time: a dead holder is replaced, a live one is waited for and named, and only one waiter wins."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs import _console
from pipeline.core.errors import TesseraError
from pipeline.dataset.commit import lease
from pipeline.dataset.commit.lease import Lease
from pipeline.run._guards import interrupt_if_lease_lost
from tests.support import ROOT


def hold(root: str, ttl: float = 2.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.dataset.commit.programs.hold_lease", root, str(ttl)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_it_is_given_back_and_taken_again(tmp_path: Path) -> None:
    for _ in range(3):
        started = time.monotonic()
        with Lease(str(tmp_path), "a", ttl_s=20) as lease:
            lease.check()
        assert time.monotonic() - started < 5
    assert len(list((tmp_path / "_leases").iterdir())) <= 2


def test_a_living_holder_is_waited_for_and_named(tmp_path: Path) -> None:
    process = hold(str(tmp_path))
    try:
        started = time.monotonic()
        with pytest.raises(TesseraError, match=rf"is in use by extract x \(process {process.pid} on .*\): wait for it"):
            Lease(str(tmp_path), "b", ttl_s=2).__enter__()
        assert 1.9 < time.monotonic() - started < 6
    finally:
        process.kill()
        process.wait()


def test_a_dead_holder_of_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    process = hold(str(tmp_path), ttl=30)
    process.kill()
    process.wait()
    started = time.monotonic()
    with Lease(str(tmp_path), "b", ttl_s=30):
        assert time.monotonic() - started < 5


def test_a_living_holder_stays_one_when_the_clock_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's start time of a process changes with the clock; the holder's does not."""
    process = hold(str(tmp_path), ttl=30)
    try:
        _, holder = Lease(str(tmp_path), "b")._newest()
        assert holder is not None
        monkeypatch.setattr(psutil, "boot_time", lambda: time.time())
        assert not lease._is_dead(holder)
        assert not lease._is_dead(replace(holder, boot="another machine of this name"))
        process.kill()
        time.sleep(0.2)
        assert lease._is_dead(holder), "not waited for by its parent yet, but gone"
    finally:
        process.kill()
        process.wait()
    assert lease._is_dead(holder)


def test_a_silent_holder_of_another_host_is_replaced_after_its_time(tmp_path: Path) -> None:
    with Lease(str(tmp_path), "a", ttl_s=1):
        pass
    (path,) = (tmp_path / "_leases").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere", "released": False}))
    started = time.monotonic()
    with Lease(str(tmp_path), "b", ttl_s=1):
        assert 0.9 < time.monotonic() - started < 4


@pytest.mark.parametrize("handler", [None, _console.stop])
def test_a_run_that_was_replaced_while_it_slept_ends_at_once(tmp_path: Path, handler: Any) -> None:
    def sleep() -> None:
        with asleep, interrupt_if_lease_lost(asleep):
            Lease(str(tmp_path), "extract y")._take(2)
            for _ in range(200):  # as Ray waits: a signal is handled between two polls, and does not interrupt one
                time.sleep(0.1)

    asleep = Lease(str(tmp_path), "extract x", ttl_s=0.4)
    before = signal.signal(signal.SIGINT, handler or signal.default_int_handler)  # a background job ignores it
    started = time.monotonic()
    try:
        with pytest.raises(TesseraError, match="the lease was taken over by extract y"):
            sleep()
        assert time.monotonic() - started < 10
    finally:
        signal.signal(signal.SIGINT, before)
    assert asleep.lost
    with Lease(str(tmp_path / "2"), "extract x", ttl_s=0.4) as mine, interrupt_if_lease_lost(mine):
        pass
    with (
        pytest.raises(KeyboardInterrupt),
        Lease(str(tmp_path / "3"), "x", ttl_s=9) as mine,
        interrupt_if_lease_lost(mine),
    ):
        raise KeyboardInterrupt


def test_a_dataset_that_is_deleted_during_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    lease = Lease(str(folder), "extract x", ttl_s=0.4)

    def work() -> None:
        with lease, interrupt_if_lease_lost(lease):
            shutil.rmtree(folder)
            for _ in range(200):
                time.sleep(0.1)

    started = time.monotonic()
    with pytest.raises(TesseraError, match=r"/dataset' was deleted during the run, or its leases were: nothing was"):
        work()
    assert time.monotonic() - started < 5
    assert not folder.exists(), "the lease does not make the folder again"


def test_who_was_replaced_while_it_slept_is_told(tmp_path: Path) -> None:
    asleep = Lease(str(tmp_path), "a", ttl_s=1)
    asleep.__enter__()
    asleep._heartbeat.close()
    (path,) = (tmp_path / "_leases").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    with Lease(str(tmp_path), "b", ttl_s=1) as awake:
        with pytest.raises(TesseraError, match=r"taken over by b .*run again to continue"):
            asleep.check()
        asleep.__exit__(None, None, None)
        awake.check()


def test_of_many_that_wait_one_holds_it_at_a_time(tmp_path: Path) -> None:
    inside, most, errors = [0], [0], []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                with Lease(str(tmp_path), f"w{number}", ttl_s=20):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.01)
                    inside[0] -= 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, most[0], inside[0]) == ([], 1, 0)


def test_on_s3(s3: Any) -> None:
    with Lease("s3://corpus/out/v1", "a", ttl_s=3) as lease:
        with pytest.raises(TesseraError, match="is in use by a"):
            Lease("s3://corpus/out/v1", "b", ttl_s=1).__enter__()
        lease.check()
    with Lease("s3://corpus/out/v1", "b", ttl_s=3):
        pass
