"""Only a version that no run has committed is discarded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError, TesseraError
from pipeline.dataset import discard
from pipeline.dataset.commit.transaction import Transaction
from tests.support.dataset_fixtures import RUNS, ids, night, write


def _begun(out: Path, version: str = "v2") -> Path:
    """Writes what the first run of a version leaves if it is killed before its commit."""
    root = out / version
    write(root, RUNS[7], ["a", "b"], {1: "io"})
    (root / "_running").mkdir()
    (root / "_running" / f"{RUNS[7]}.json").write_text(json.dumps({"base": 0, "identity": "identity"}))
    return root


def test_a_run_that_begins_meanwhile_keeps_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.dataset.commit.lease import Lease

    root, real = _begun(tmp_path), Transaction.__exit__
    begun: list[Lease] = []

    def begin(self: Transaction, *error: Any) -> None:
        real(self, *error)
        begun.append(Lease(str(root), "extract", 5.0))
        begun[0].__enter__()

    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "__exit__", begin)
        discard.discard(str(tmp_path), "v2")
    begun[0].check()
    begun[0].__exit__(None, None, None)
    assert not (root / "data").exists()


def test_a_version_that_was_begun_is_discarded(tmp_path: Path) -> None:
    night(tmp_path / "v1", RUNS[1], ["a"])
    before = {path: path.read_bytes() for path in (tmp_path / "v1").rglob("*") if path.is_file()}
    root = _begun(tmp_path)
    assert discard.discard(str(tmp_path), "v2").removed == 1
    assert not root.exists()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert ids(tmp_path) == ["a"]


def test_a_version_that_was_committed_is_not_discarded(tmp_path: Path) -> None:
    night(tmp_path / "v1", RUNS[1], ["a"])
    for version, words in (("v1", "'v1' has a snapshot"), ("v9", "there is no version 'v9'")):
        with pytest.raises(ConfigError, match=words):
            discard.discard(str(tmp_path), version)
    assert ids(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "path",
    [
        "thesis.txt",
        "data/2024/a.jpg",
        "data/a.parquet",
        "_runs/notes.txt",
        "_runs/thesis/a.txt",
        f"_runs/{RUNS[7]}/notes/thesis.txt",
        f"_runs/{RUNS[7]}/plan/a/b/c/d/deep.parquet",
        f"_runs/{RUNS[7]}/pending/data/mine.parquet",
        "_running/mine.json",
        "_superseded/data/mine.jpg",
        "_snapshots/00000001.json.bak",
        "_leases/mine.txt",
    ],
)
def test_a_version_with_foreign_files_is_not_discarded(tmp_path: Path, path: str) -> None:
    root = _begun(tmp_path)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("precious")
    before = sorted(root.rglob("*"))
    with pytest.raises(ConfigError, match="which no such run writes") as refused:
        discard.discard(str(tmp_path), "v2")
    assert path.startswith(str(refused.value).split("holds '")[1].split("'")[0])
    assert sorted(root.rglob("*")) == before


def test_a_folder_that_no_run_began_is_not_discarded(tmp_path: Path) -> None:
    (tmp_path / "photos" / "data").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("photos", "empty"):
        with pytest.raises(ConfigError, match="no run has begun in"):
            discard.discard(str(tmp_path), name)
        assert (tmp_path / name).exists()


def test_a_version_whose_snapshots_are_lost_is_not_discarded(tmp_path: Path) -> None:
    """The first run is complete, so these rows may be the only copy."""
    root = _begun(tmp_path)
    (root / "_running" / f"{RUNS[7]}.json").unlink()
    (root / "_runs" / RUNS[7]).mkdir(parents=True, exist_ok=True)
    report = root / "_runs" / RUNS[7] / "report.json"
    report.write_text(json.dumps({"status": "complete"}))
    with pytest.raises(ConfigError, match="is complete, and no snapshot names its rows"):
        discard.discard(str(tmp_path), "v2")
    assert list((root / "data").iterdir())
    report.write_text(json.dumps({"status": "broken off"}))
    discard.discard(str(tmp_path), "v2")
    assert not root.exists()


def test_rows_without_a_report_and_an_announcement_are_not_discarded(tmp_path: Path) -> None:
    """Snapshots and runs are lost: the rows may be the only ones."""
    root = _begun(tmp_path)
    shutil.rmtree(root / "_running")
    shutil.rmtree(root / "_runs", ignore_errors=True)
    (root / "_leases").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="is complete, and no snapshot names its rows"):
        discard.discard(str(tmp_path), "v2")
    assert list((root / "data").iterdir())


def test_what_a_kill_at_the_commit_leaves_is_discarded(tmp_path: Path) -> None:
    """A snapshot that was half written; or a report of a run whose rows are gone."""
    root = _begun(tmp_path)
    (root / "_snapshots").mkdir(exist_ok=True)
    (root / "_snapshots" / f"00000001.json.{'a' * 32}.tmp").write_text("{")
    discard.discard(str(tmp_path), "v2")
    assert not root.exists()
    root = _begun(tmp_path)
    shutil.rmtree(root / "_running")
    shutil.rmtree(root / "data")
    (root / "_runs" / RUNS[7]).mkdir(parents=True, exist_ok=True)
    (root / "_runs" / RUNS[7] / "report.json").write_text(json.dumps({"status": "complete"}))
    discard.discard(str(tmp_path), "v2")
    assert not root.exists()


def test_a_link_in_a_version_is_not_followed_when_it_is_discarded(tmp_path: Path) -> None:
    root, outside = _begun(tmp_path), tmp_path / "home"
    outside.mkdir()
    (outside / "key").write_text("precious")
    if (root / "_runs").exists():
        shutil.rmtree(root / "_runs")
    (root / "_runs").symlink_to(outside)
    with pytest.raises(TesseraError, match="_runs"):
        discard.discard(str(tmp_path), "v2")
    assert (outside / "key").read_text() == "precious"


def test_a_version_in_use_is_not_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.dataset.commit.lease import Lease

    root = _begun(tmp_path)
    monkeypatch.setattr(Transaction.__init__, "__defaults__", (0.5,))
    with Lease(str(root), "extract", 0.4), pytest.raises(TesseraError, match="is in use by extract"):
        discard.discard(str(tmp_path), "v2")
    assert (root / "data").exists()
