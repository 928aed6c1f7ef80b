"""Vacuum deletes the folders of old runs, and leaves those that somebody still reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import new_run_id
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.transaction import Transaction
from pipeline.run import budget
from tests.run.test_budget import report
from tests.support.dataset_fixtures import RUNS, ids, night, write

QUIET = [f"2026020{i}T000000-000{i}" for i in range(1, 4)]
"""Runs that found nothing to do: a folder with a report, and no snapshot."""


def leave(root: Path, run_id: str, **values: Any) -> None:
    folder = root / "_runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps({"status": "complete", **report(4, 4), **values}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs with snapshots, then three without."""
    root = tmp_path / "out" / "v1"
    for number, names in ((1, "ab"), (2, "c"), (3, "d")):
        night(root, RUNS[number], [*names])
    for run_id in (*RUNS[1:4], *QUIET):
        leave(root, run_id)
    (root / "_runs" / QUIET[0] / "judged.json").write_text("{}")
    (root / "_runs" / QUIET[0] / f"report.json.{'0' * 32}.tmp").write_text("{")
    return root


def left(root: Path) -> list[str]:
    return sorted(os.listdir(root / "_runs"))


def test_old_runs_go_and_those_of_kept_snapshots_stay(root: Path) -> None:
    (done,) = maintenance.vacuum(str(root.parent), maintenance.seconds("5200w"))
    assert (done.runs, left(root)) == (0, [*RUNS[1:4], *QUIET])
    maintenance.pin(str(root.parent), "training", at=1)
    (done,) = maintenance.vacuum(str(root.parent), 0)
    assert (done.runs, done.snapshot) == (3, 4)
    assert left(root) == [RUNS[1], RUNS[3], QUIET[2]], "of the pinned snapshot, of a recent one, and the last run"
    assert sorted(os.listdir(root / "_runs" / RUNS[1])) == ["config.json", "report.json"]
    (done,) = maintenance.vacuum(str(root.parent), 0)
    assert (done.runs, left(root)) == (1, [RUNS[1], QUIET[2]]), "snapshot 3 is old now"


def test_nothing_is_committed_if_only_folders_of_runs_are_deleted(root: Path) -> None:
    (done,) = maintenance.vacuum(str(root.parent), maintenance.seconds("5200w"))
    for number in (1, 2, 3):
        path = root / "_snapshots" / f"{number:08d}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "created": "2100-01-01T00:00:00+00:00"}))
    (done,) = maintenance.vacuum(str(root.parent), maintenance.seconds("1d"))
    assert (done.runs, done.snapshot, done.removed) == (2, 3, 0)
    assert left(root) == [*RUNS[1:4], QUIET[2]]


def test_recent_runs_stay(root: Path) -> None:
    leave(root, recent := new_run_id())
    leave(root, last := f"{recent[:-4]}ffff")
    (done,) = maintenance.vacuum(str(root.parent), maintenance.seconds("1d"))
    assert left(root)[-2:] == [recent, last] or recent == last
    assert done.runs == 3


def test_a_run_that_can_be_continued_stays(root: Path) -> None:
    with Transaction(str(root), "extract", QUIET[1]) as transaction:
        transaction.resume_interrupted("identity")
        write(root, QUIET[1], ["y"])
    maintenance.vacuum(str(root.parent), 0)
    assert QUIET[1] in left(root)
    assert {"config.json", "tasks"} <= set(os.listdir(root / "_runs" / QUIET[1]))
    with Transaction(str(root), "extract", QUIET[2]) as transaction:
        transaction.resume_interrupted("identity")
        assert [one.run_id for one in transaction.killed] == [QUIET[1]]


def test_the_failures_of_the_last_commit_are_judged_after_a_vacuum(root: Path) -> None:
    """A run was stopped between its commit and the check of its budget."""
    before = budget.unchecked_report(DatasetFolder(str(root)), snapshots.newest(str(root)))
    assert before is not None
    assert before["run_id"] == RUNS[3]
    maintenance.vacuum(str(root.parent), 0)
    assert budget.unchecked_report(DatasetFolder(str(root)), snapshots.newest(str(root))) == before


def test_folders_that_compactions_leave_are_deleted_too(root: Path) -> None:
    maintenance.compact(str(root.parent))
    (empty,) = set(left(root)) - {*RUNS, *QUIET}
    assert os.listdir(root / "_runs" / empty) == []
    leave(root, "20990101T000000-0001")
    maintenance.vacuum(str(root.parent), 0)
    time.sleep(1.1)  # ids have the time in seconds
    maintenance.vacuum(str(root.parent), 0)
    assert left(root) == ["20990101T000000-0001"]
    assert ids(root.parent) == ["a", "b", "c", "d"]


def test_what_no_run_writes_stays(root: Path, tmp_path: Path) -> None:
    """Names that are no run, files that are none of a run, links, a folder in the place of a file."""
    runs = root / "_runs"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "report.json").write_text("precious")
    (runs / "notes").mkdir()
    (runs / "notes" / "report.json").write_text("mine")
    (runs / QUIET[0] / "notes.txt").write_text("mine")
    (runs / RUNS[5]).symlink_to(tmp_path / "home")
    (runs / RUNS[6]).mkdir()
    (runs / RUNS[6] / "report.json").symlink_to(tmp_path / "home" / "report.json")
    (runs / RUNS[7]).write_text("a file")
    (runs / RUNS[8] / "config.json").mkdir(parents=True)
    maintenance.vacuum(str(root.parent), 0)
    maintenance.vacuum(str(root.parent), 0)
    assert left(root) == sorted(["notes", QUIET[0], RUNS[5], RUNS[7], RUNS[8], QUIET[2]])
    assert os.listdir(runs / QUIET[0]) == ["notes.txt"]
    assert (tmp_path / "home" / "report.json").read_text() == "precious"


def test_on_s3(s3: Any) -> None:
    root = "s3://corpus/out/v1"
    night(root, RUNS[1], ["a"])
    for run_id in (RUNS[1], *QUIET):
        for name in ("config", "report", "judged"):
            s3.pipe_file(f"corpus/out/v1/_runs/{run_id}/{name}.json", b"{}")
    (done,) = maintenance.vacuum("s3://corpus/out", maintenance.seconds("1d"))
    assert done.runs == 2
    assert {path.split("/")[4] for path in s3.find("corpus/out/v1/_runs")} == {RUNS[1], QUIET[2]}
