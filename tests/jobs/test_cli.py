"""The command as a person runs it: a process, its output, its exit code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.jobs.commands import tessera, write_config
from tests.support import ROOT
from tests.support.dataset_fixtures import RUNS, night


def test_plan_then_extract_then_inspect(
    tmp_path: Path, called: Callable[..., Any], extracting: Callable[..., Any]
) -> None:
    config = str(write_config(tmp_path))
    plan = called("extract", config, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "2 samples to extract (files: 2 image)" in plan.stdout
    assert not (tmp_path / "out").exists()
    done = tessera("extract", config, "--set", "failures.max_fraction=1")
    assert done.returncode == 0, done.stderr
    assert "2 samples · 2 rows: 1 written, 1 failed" in done.stdout
    assert "failures: 1 empty" in done.stdout
    assert done.stdout.rstrip().endswith(f"dataset: {tmp_path / 'out'}")
    assert done.stderr == ""
    shown = called("inspect", str(tmp_path / "out"))
    assert shown.returncode == 0, shown.stderr
    for words in ("1 row in 1 shard", "1 failure\n", "feature t", "a.png", "zero bytes", "raw"):
        assert words in shown.stdout
    again = extracting("extract", config)
    assert (again.returncode, again.stderr) == (0, "")
    assert "samples: 0 new, 0 changed, 2 unchanged, 0 deleted" in again.stdout
    kept = called("snapshots", str(tmp_path / "out"))
    assert [line.split()[0] for line in kept.stdout.splitlines()] == ["snapshot", "1"]


def test_upkeep_of_a_dataset(tmp_path: Path, called: Callable[..., Any]) -> None:
    for run_id, name in zip(RUNS[1:3], "ab", strict=True):
        night(tmp_path / "v1", run_id, [name, f"{name}{name}"])
    out = str(tmp_path)
    for args, words in (
        (["compact", out], "v1: 2 files rewritten, 0 deleted rows left out"),
        (["forget", out, "a"], "v1: 1 row or failure removed from 1 file, wrote"),
        (["vacuum", out, "--older-than", "7d"], "v1: 3 files and 2 folders of old runs deleted"),
        (["versions", out], "v1 (current)"),
        (["versions", out, "--use", "v1"], "v1 (current)"),
        (["rollback", out, "--to", "4"], "v1: the rows are those of the old snapshot again · snapshot 6"),
    ):
        done = called(*args)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert words in done.stdout
    for args, words in (
        (["vacuum", out, "--older-than", "soon"], "--older-than: found 'soon'"),
        (["rollback", out, "--to", "1"], "--to: there is no snapshot 1"),
        (["compact", out, "--version", "v3"], "--version: there is no version 'v3'"),
    ):
        done = called(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


def test_pins(tmp_path: Path, called: Callable[..., Any]) -> None:
    for run_id, name in zip(RUNS[1:3], "ab", strict=True):
        night(tmp_path / "v1", run_id, [name])
    out = str(tmp_path)
    done = called("snapshots", out, "--pin", "training", "--at", "1", "--until", "2100-01-31")
    assert (done.returncode, done.stderr) == (0, "")
    assert "training (until 2100-01-31 23:59:59)" in done.stdout.splitlines()[1]
    done = called("snapshots", out, "--pin", "newest", "--version", "v1", "--json")
    assert [[pin["name"] for pin in one["pins"]] for one in json.loads(done.stdout)["snapshots"]] == [
        ["training"],
        ["newest"],
    ]
    done = called("snapshots", out, "--unpin", "newest")
    assert "newest" not in done.stdout
    for args, words in (
        (["--pin", "12"], "--pin: found '12'; a letter, then at most 63 letters"),
        (["--pin", "x", "--at", "7"], "--at: there is no snapshot 7"),
        (["--pin", "x", "--until", "2020-01-01"], "--until: '2020-01-01' is in the past"),
        (["--at", "1"], "--at: without --pin; give --pin NAME"),
        (["--until", "2100-01-01"], "--until: without --pin"),
        (["--pin", "x", "--unpin", "training"], "--unpin: together with --pin"),
        (["--unpin", "newest"], "--unpin: there is no pin 'newest'"),
    ):
        done = called("snapshots", out, *args)
        assert (done.returncode, done.stdout) == (2, ""), args
        assert words in done.stderr
    called("forget", out, "a")
    (version,) = json.loads(called("vacuum", out, "--json").stdout)["versions"]
    assert (version["pins_removed"], version["pins_expired"]) == (["training"], [])


def test_past_the_budget_the_exit_code_is_3(tmp_path: Path, extracting: Callable[..., Any]) -> None:
    config = str(write_config(tmp_path, failures={"max_rows": 0}))
    done = extracting("extract", config)
    assert done.returncode == 3
    assert "1 written" in done.stdout
    assert "1 of 2 rows failed" in done.stderr


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, models: Path, called: Callable[..., Any]) -> None:
    config, vit = str(write_config(tmp_path)), "features.t.encoder={kind: vit, checkpoint: %s}"
    for args, words in (
        (["extract", config, "--set", vit % "nowhere"], "features.t.encoder.checkpoint: no folder"),
        (["extract", config, "--set", vit % (models / "clip")], "model_type 'clip'"),
        (["extract", config, "--set", "sorce.path=x"], "sorce: unknown key"),
        (["extract", config, "--set", "source.path=/no/such/folder"], "source.path: '/no/such/folder'"),
        (["extract", str(tmp_path / "none.yaml")], "cannot be read"),
        (["inspect", str(tmp_path / "in")], "path"),
        (["extract", config, "--set", "output.path=/proc/out"], "output.path: cannot write to '/proc/out/v1'"),
        (
            ["extract", config, "--set", vit % (models / "vit"), "--set", "features.t.encoder.device=cuda"],
            "no CUDA device; auto or cpu",
        ),
    ):
        done = called(*args)
        assert done.returncode == 2, done
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    done = tessera("extract", str(write_config(tmp_path)), "--set", "compute.address=127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "compute.address: no Ray cluster answers at" in done.stderr


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "raylet"),
        (signal.SIGINT, "MapWorker"),
        (signal.SIGINT, "tessera-forks"),
        (signal.SIGTERM, "tessera-encode"),
    ],
)
def test_a_stopped_run_ends_with_4_and_leaves_no_dataset(
    tmp_path: Path, shared_ray: dict[str, str], called: Callable[..., Any], number: signal.Signals, when: str
) -> None:
    """While it starts a Ray of its own, whose folder goes with it; while it computes in another; and without Ray."""
    place = tempfile.mkdtemp(prefix="t-")  # pytest's own has too long a name for sockets
    config = write_config(tmp_path)
    for i in range(600):
        shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / f"{i}.png")
    before = _processes(when)
    engine = "local" if when.startswith("tessera") else "ray"
    run = psutil.Popen(
        [sys.executable, "-m", "jobs.cli", "extract", str(config), "--set", "compute.block_rows=1", "--engine", engine],
        cwd=ROOT,
        env=shared_ray if when == "MapWorker" else {**os.environ, "RAY_TMPDIR": place},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = time.monotonic()
    while time.monotonic() - started < 100 and not _processes(when) - before:
        time.sleep(0.1)
    run.send_signal(number)
    _, reported = run.communicate(timeout=100)
    assert run.returncode == 4, reported
    assert reported.strip().endswith("tessera: interrupted")
    assert "Traceback" not in reported
    assert called("inspect", str(tmp_path / "out")).returncode == 2
    os.rmdir(place)  # nothing is left in it


def _processes(name: str) -> set[int]:
    """Those below this one with ``name`` in their name or command."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if name in " ".join([child.name(), *child.cmdline()]):
                found.add(child.pid)
    return found


def test_help_names_every_command() -> None:
    shown = tessera("--help")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("extract", "inspect", "models", "corpus", "compact", "vacuum"))
