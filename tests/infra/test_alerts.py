"""Alerts of a real Prometheus over real runs: silent for a healthy night, and each of the main ones where it should
fire. The spans of the rules are a sixtieth of those that are delivered: minutes are seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import run
from pipeline.config.models import PipelineConfig
from pipeline.nightly import Night, NightOptions
from pipeline.telemetry import recording
from pipeline.telemetry.prometheus import exporting
from tests.infra.prometheus_server import FOLDER, Prometheus, exposed, free_port, need, scaled, wait_until
from tests.stages.media_fixtures import AUDIO, config, write_tone
from tests.support import ROOT
from tests.support.faulty_proxy import FaultyProxy
from tests.support.memory_cgroup import memory_cgroup

pytestmark = pytest.mark.slow
SOON_S = 90.0
NIGHTS = {"TesseraNightMissed", "TesseraNightFailed", "TesseraNightsPartial"}


@pytest.fixture(autouse=True)
def _own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_values", recording._Values())


@contextmanager
def watched(folder: Path, jobs: dict[str, list[str]], factor: float = 1 / 60) -> Iterator[Prometheus]:
    need("prometheus")
    (folder / "prometheus").mkdir()
    rules = scaled((FOLDER / "rules.yml").read_text(), factor)
    with Prometheus(folder / "prometheus", jobs, rules, "1s") as prometheus:
        yield prometheus
        assert prometheus.rules_with_errors() == []


def _tones(folder: Path, good: int, bad: int) -> Path:
    folder.mkdir()
    write_tone(folder / "tone0.wav", 2.0)
    for number in range(1, good):
        shutil.copy(folder / "tone0.wav", folder / f"tone{number}.wav")
    for number in range(bad):
        (folder / f"bad{number}.wav").write_bytes(b"RIFF....WAVE")
    return folder


def _config(corpus: Path, **sections: Any) -> PipelineConfig:
    return config(corpus, {"a": AUDIO}, window={"length_s": 1}, compute={"block_rows": 4, "num_cpus": 1}, **sections)


def _once(prometheus: Prometheus, alert: str) -> dict[str, Any]:
    """Waits until an alert fires, and returns it."""
    fired: dict[str, Any] = wait_until(lambda: prometheus.firing().get(alert), SOON_S)
    return fired


def test_a_healthy_night_is_silent_and_a_failing_one_is_not(tmp_path: Path, prepare: Callable[..., Any]) -> None:
    """One after the other at the same port: 300 files that are well; then 60 that are not, and the night fails."""
    port = free_port()
    good, bad = _tones(tmp_path / "good", 300, 0), _tones(tmp_path / "bad", 100, 60)
    settings = [_config(corpus, metrics={"port": port}) for corpus in (good, bad)]
    with exposed(lambda: "x 1\n") as node:
        jobs = {"tessera": [f"127.0.0.1:{port}"], "node": [node]}
        with watched(tmp_path, jobs) as prometheus, exporting(settings[0].metrics, "/"):
            wait_until(lambda: prometheus.value("sum(tessera_blocks_total)") == 0, SOON_S)
            recording.record_lag(300, 60.0)
            run.extract(prepare(settings[0], False, None, "local"), show_progress=False)
            recording.record_lag(0, None)
            recording.record_night("complete", 0)
            time.sleep(20)
            assert prometheus.firing() == {}
            others = [one.model_copy(update={"path": str(tmp_path / "out2")}) for one in (settings[1].output,)]
            failing = settings[1].model_copy(update={"output": others[0]})
            run.extract(prepare(failing, False, None, "local"), show_progress=False)
            share = _once(prometheus, "TesseraFailureShareHigh")
            assert share["annotations"]["summary"].endswith("% of the rows fail")
            recording.record_night("failed", 3)
            night = _once(prometheus, "TesseraNightFailed")
            assert night["annotations"]["summary"] == "default: the last night ended with code 3"
            assert night["labels"]["severity"] == "critical"
            recording.record_night("complete", 0)
            wait_until(lambda: "TesseraNightFailed" not in prometheus.firing(), SOON_S)
            recording.record_night("partial", 0, time.time() + 3 * 86400)  # three nights later, each cut short
            _once(prometheus, "TesseraNightsPartial")
    with exposed(lambda: "x 1\n") as node:  # another Prometheus, which has not seen the last success
        (tmp_path / "later").mkdir()
        with watched(
            tmp_path / "later", {"tessera": [f"127.0.0.1:{port}"], "node": [node, "127.0.0.1:1"]}
        ) as prometheus:
            recording._values.gauges.clear()
            with exporting(settings[0].metrics, "/"):
                recording.record_night("complete", 0, time.time() - 27 * 3600)
                missed = _once(prometheus, "TesseraNightMissed")
                assert missed["annotations"]["summary"].startswith("default: no night has succeeded for 1d 3h")
                down = _once(prometheus, "TesseraTargetDown")
                assert down["annotations"]["summary"] == "node 127.0.0.1:1 does not answer"


@contextmanager
def running(folder: Path, output: Path, name: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run of the command over many files with its metrics at a port, which is killed at the end.

    Args:
        options: of `subprocess.Popen`.
    """
    port = free_port()
    metrics = {"port": port, "name": name, "textfile": str(folder / f"{name}.prom")}
    settings = _config(_tones(folder / "in", 4000, 0), metrics=metrics, output={"path": str(output)})
    (folder / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-m", "jobs.cli", "extract", str(folder / "config.yaml"), "--engine", "local"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process, port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_that_was_killed_makes_no_progress(tmp_path: Path) -> None:
    """Its text file remains, as node_exporter shows it."""
    textfile = tmp_path / "killed.prom"
    with running(tmp_path, tmp_path / "out", "killed") as (process, _):
        wait_until(lambda: process.poll() is not None or 'run_active{config="killed"} 1' in _read(textfile), 200)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    with exposed(lambda: _read(textfile)) as node, watched(tmp_path, {"node": [node]}) as prometheus:
        stuck = _once(prometheus, "TesseraNoProgress")
        assert stuck["annotations"]["summary"].startswith("killed: a run has finished no block")
        assert not set(prometheus.firing()) & NIGHTS


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_storage_that_throttles(
    tmp_path: Path, s3: Any, prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the requests fail first: the rows are well, and the storage is not."""
    port = free_port()
    s3.put(f"{_tones(tmp_path / 'in', 150, 0)}/", "s3://corpus/in/", recursive=True)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        type(s3).clear_instance_cache()
        source = {"kind": "files", "path": "s3://corpus/in"}
        settings = _config(tmp_path / "in", source=source, metrics={"port": port})
        bound = prepare(settings, False, None, "inline")
        with watched(tmp_path, {"tessera": [f"127.0.0.1:{port}"]}) as prometheus, exporting(settings.metrics, "/"):
            wait_until(lambda: prometheus.value("sum(tessera_blocks_total)") == 0, SOON_S)
            proxy.plan_at_random(0.3, ["503", "reset"])
            report = run.extract(bound, show_progress=False)
            assert report["storage_retries"] > 0.1 * report["storage_requests"]
            assert report["rows_failed"] == 0
            words = _once(prometheus, "TesseraStorageRetriesHigh")["annotations"]["summary"]
            assert words.endswith("% of the requests repeat a failed one")


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    output = tmp_path / "disk"
    output.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=200m", "tessera-test", str(output)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode != 0:
        pytest.skip("a file system of some megabytes cannot be mounted here")
    try:
        with open(output / "other", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 186 << 20)
        with (
            running(tmp_path, output / "out", "disk") as (_, port),
            watched(tmp_path, {"tessera": [f"127.0.0.1:{port}"]}) as prometheus,
        ):
            words = _once(prometheus, "TesseraDiskNearlyFull")["annotations"]["summary"]
            assert " output: " in words
            assert words.endswith("% of the disk is free")
    finally:
        subprocess.run(["umount", "--lazy", str(output)], check=True)


def test_memory_that_is_nearly_used_up(tmp_path: Path) -> None:
    """A run in a cgroup with little more memory than it uses."""
    with memory_cgroup(4 << 30) as group:
        enter = partial(_enter, group.processes)
        with (
            running(tmp_path, tmp_path / "out", "memory", preexec_fn=enter) as (_, port),
            watched(tmp_path, {"tessera": [f"127.0.0.1:{port}"]}) as prometheus,
        ):
            wait_until(lambda: prometheus.value("max(tessera_run_active)") == 1, SOON_S)
            time.sleep(5)
            assert "TesseraMemoryHigh" not in prometheus.firing()
            # the sum of the processes counts shared pages several times: it is more than the cgroup's own figure
            group.limit(int(prometheus.value("max(tessera_memory_bytes)") or 0))
            words = _once(prometheus, "TesseraMemoryHigh")["annotations"]["summary"]
            assert words.endswith("% of the memory is used")


def _enter(processes: Path) -> None:
    processes.write_text(str(os.getpid()))


def test_a_lag_that_grows(tmp_path: Path) -> None:
    """Three nights that begin nothing, over a corpus that grows. A day is ten seconds."""
    textfile = tmp_path / "lag.prom"
    _tones(tmp_path / "in", 10, 0)
    settings = _config(tmp_path / "in", metrics={"textfile": str(textfile), "name": "lag"})
    with exposed(lambda: _read(textfile)) as node, watched(tmp_path, {"node": [node]}, 1 / 8640) as prometheus:
        for night in range(4):
            for number in range(10):
                shutil.copy(tmp_path / "in" / "tone0.wav", tmp_path / "in" / f"night{night}-{number}.wav")
            summary = Night("c", str(tmp_path / "s.json"), NightOptions("inline", "0s"), time.time()).run(
                lambda: settings
            )
            assert summary["samples_left"] == 10 * (night + 2)
            assert "TesseraLagGrows" not in prometheus.firing() or night > 1
            time.sleep(10)
        words = _once(prometheus, "TesseraLagGrows")["annotations"]["summary"]
        assert words.startswith("lag: ")
        assert words.endswith(" samples are not in the dataset, more than after each night before")
