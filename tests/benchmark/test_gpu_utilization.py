"""What `nvidia-smi` says, line by line; of a machine without it, nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.benchmark.gpu_utilization import Busy


def _driver(folder: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A command of that name before all others on the path."""
    command = folder / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{words}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_mean_of_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, "while true; do echo ' 80'; echo 40; echo '[N/A]'; sleep 0.05; done")
    with Busy() as gpu_utilization:
        begun = time.time()
        time.sleep(1.6)
        ended = time.time()
    assert gpu_utilization.within([(begun, ended)]) == pytest.approx(0.6)
    assert gpu_utilization.within([(begun - 9, begun - 8)]) is None
    assert "--query-gpu=utilization.gpu" in (tmp_path / "asked").read_text()
    assert "--id" not in (tmp_path / "asked").read_text()


def test_only_what_was_seen_inside_counts() -> None:
    gpu_utilization = Busy()
    gpu_utilization.seen = [(0.0, 1.0), (1.0, 0.2), (1.9, 0.4), (2.25, 0.8), (3.5, 0.9)]
    assert gpu_utilization.within([(1.0, 2.5)]) == 0.8, "the measurement at 1.9 covers time before 1.0 too"
    assert gpu_utilization.within([(1.0, 2.5), (2.4, 3.5)]) == pytest.approx(0.85)


def test_the_devices_that_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, "exec sleep 9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    with Busy() as gpu_utilization:
        while not (tmp_path / "asked").exists() or not (tmp_path / "asked").read_text():
            time.sleep(0.01)
    assert "--id=1,3" in (tmp_path / "asked").read_text()
    assert gpu_utilization.within([(0.0, time.time())]) is None


def test_a_machine_without_it_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Busy() as gpu_utilization:
        pass
    assert gpu_utilization.within([(0.0, time.time())]) is None
