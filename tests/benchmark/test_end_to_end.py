"""A process's title says what it does; its CPU seconds count, at each measurement, for what it does then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.benchmark import end_to_end
from pipeline.benchmark.end_to_end import KINDS, _kind
from pipeline.config.features import bind
from pipeline.core.errors import TesseraError
from pipeline.sandbox import SandboxedStage
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT

SITE = "/venv/lib/python3.11/site-packages"
ISOLATED = "/venv/bin/python -c import sys; from pipeline.sandbox.worker import main; main()"
FORK_SERVER = "/venv/bin/python -c import sys; from pipeline.sandbox._fork_server_process import serve; serve()"


class Process:
    """What `_kind` asks of a process."""

    def __init__(self, command: str, name: str = "python") -> None:
        self.command, self.title = command, name

    def cmdline(self) -> list[str]:
        return self.command.split(" ")

    def name(self) -> str:
        return self.title


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::MapWorker(MapBatches(_Stage)).submit()", "encode"),
        ("ray::MapWorker(MapBatches(_Stage))", "encode"),
        ("ray::MapBatches(_Task)->MapBatches(_Task)", "probe"),
        ("ray::Write", "write"),
        ("ray::IDLE", "idle"),
        (f"/venv/bin/python {SITE}/ray/_private/workers/default_worker.py --node-ip-address=127.0.0.1", "idle"),
        ("ray::_StatsActor", "Ray"),
        (f"{SITE}/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/ray", "Ray"),
        (f"{SITE}/ray/core/src/ray/gcs/gcs_server", "Ray"),
        (f"/venv/bin/python {SITE}/ray/dashboard/dashboard.py", "Ray"),
        (f"/venv/bin/python {SITE}/ray/_private/log_monitor.py", "Ray"),
        (f"/venv/bin/python {SITE}/ray/autoscaler/_private/monitor.py", "Ray"),
        ("/usr/bin/lscpu", "other"),
        ("", "other"),
    ],
)
def test_what_a_process_does_by_its_title(command: str, kind: str) -> None:
    assert _kind(Process(command)) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [ISOLATED, FORK_SERVER])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tessera-probe", "probe"),
        ("tessera-decode", "decode"),
        ("tessera-encode", "encode"),
        ("tessera-forks", "fork server"),
        ("python", "other"),  # not yet
    ],
)
def test_what_a_stages_own_process_does_by_its_name(command: str, name: str, kind: str) -> None:
    """Processes that a fork server forked have its command line."""
    assert _kind(Process(command, name)) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(("stage", "kind"), [(ProbeStage, "probe"), (DecodeStage, "decode")])
def test_a_stages_own_process_is_named(tmp_path: Path, stage: Any, kind: str) -> None:
    settings = config(tmp_path, {"i": IMAGE})
    isolated = SandboxedStage(stage(settings, bind(settings)), settings.decoders.limits)
    before = psutil.Process().children()  # other tests' fork server
    isolated.setup()
    try:
        (process,) = (one for one in psutil.Process().children() if one not in before)
        assert _kind(process) == kind
    finally:
        isolated.close()


def test_every_title_is_of_a_kind() -> None:
    assert set(end_to_end._TITLES.values()) | {"driver"} == set(KINDS)


def test_the_report_is_the_one_that_was_written(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000-abcd").mkdir()
    file = tmp_path / "20260101T000000-abcd" / "report.json"
    file.write_text(json.dumps({"rows_planned": 3}))
    os.utime(file, (1000.0, 2000.5))
    assert end_to_end._report(str(tmp_path)) == ({"rows_planned": 3}, 2000.5)


def test_paths_of_this_folder_are_so_wherever_the_config_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    given = {"path": "./in", "list": ["../m", "plain/x", 3, None], "deep": {"url": "s3://b/./x", "dots": "..."}}
    assert end_to_end._absolute(given) == {
        "path": str(tmp_path / "a" / "in"),
        "list": [str(tmp_path / "m"), "plain/x", 3, None],
        "deep": {"url": "s3://b/./x", "dots": "..."},
    }


@pytest.mark.parametrize(("startup_s", "first_row_s"), [(12.0, 17.0), (None, 5.0)])
def test_a_run_is_what_its_report_says_and_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, startup_s: float | None, first_row_s: float
) -> None:
    """Its report was written 25 s after the command, by a clock that says 20 s: imports and checks come before."""
    report = {
        "rows_planned": 90,
        "rows_with_failures": 4,
        "seconds": 20.0,
        "startup_seconds": startup_s,
        "peak_memory_bytes": 1000,
        "bytes_moved": 200,
        "bytes_written": 300,
        "seconds_by_stage": {"write": 1.5},
    }
    line = [(0.0, {}), (0.5, {"driver": 0.4}), (1.0, {"driver": 0.9, "encode": 0.1})]
    asked: list[list[str]] = []

    def start(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(returncode=3, kill=lambda: None, wait=lambda: None)

    monkeypatch.setattr(end_to_end, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))
    monkeypatch.setattr(end_to_end, "_watch", lambda *_: (line, 0.8))
    monkeypatch.setattr(end_to_end, "_report", lambda _: (report, time.time() + 25.0))
    wall = end_to_end.run(config(tmp_path / "in", {"i": IMAGE}), str(tmp_path))
    assert (wall.rows, wall.failed, wall.first_shard_s, wall.write_s) == (90, 4, 0.8, 1.5)
    assert (wall.peak_bytes, wall.bytes_moved, wall.bytes_written) == (1000, 200, 300)
    assert (wall.line, wall.cpu_s) == (line, {"driver": 0.9, "encode": 0.1})
    assert wall.first_row_s == pytest.approx(first_row_s, abs=0.5)
    written = json.loads((tmp_path / "config.yaml").read_text())
    assert asked[0][-2:] == ["extract", str(tmp_path / "config.yaml")]
    assert written["output"]["path"] == str(tmp_path / "dataset")


def test_a_workers_seconds_count_for_what_it_does_then(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    started = time.time()
    command = [sys.executable, "-m", "tests.benchmark.programs.run_worker_and_write_shard"]
    worker = ROOT / "tests" / "benchmark" / "programs" / "become_map_worker.py"
    process = subprocess.Popen([*command, str(worker), str(data)], cwd=ROOT)
    line, first_shard_s = end_to_end._watch(process, str(data), started)
    assert process.returncode == 0
    assert line[0] == (0.0, {})
    assert len(line) >= 5
    reported = line[-1][1]
    assert list(reported) == ["driver", "encode", "idle"]
    assert 0.2 < reported["idle"] < 1.2
    assert 0.9 < reported["encode"] < 1.8  # what it did since the look before too
    assert reported["idle"] + reported["encode"] == pytest.approx(2, abs=0.4)
    times = [at for at, _ in line]
    assert times == sorted(times)
    for kind in reported:
        spent = [by_kind.get(kind, 0.0) for _, by_kind in line]
        assert spent == sorted(spent)
    assert first_shard_s is not None
    assert 1.9 < first_shard_s < times[-1] + 0.1


def test_a_run_that_ends_with_an_error_is_told_in_its_words(tmp_path: Path) -> None:
    settings = config(tmp_path / "nowhere", {"i": IMAGE})
    (tmp_path / "own").mkdir()
    with pytest.raises(TesseraError, match=r"^extract ended with code 2: source\.path: '.*nowhere'"):
        end_to_end.run(settings, str(tmp_path / "own"))
    assert not (tmp_path / "out").exists()
