"""Links, pipes and files where folders belong, folders without end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline import dataset
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index
from pipeline.dataset.diff.index import RetryPolicy
from tests.hostile_dataset.helpers import (
    DOES,
    assert_reported,
    extract,
    interrupt,
    newest,
    tree,
)
from tests.storage.test_local_files import deep
from tests.support.dataset_fixtures import RUNS, ids, night

pytestmark = pytest.mark.timeout(120)


LINKED = (
    "data",
    "_failures",
    "_empty",
    "_snapshots",
    "_leases",
    "_pins",
    "_running",
    "_runs",
    f"_runs/{RUNS[7]}",
    f"_runs/{RUNS[7]}/pending",
    f"_runs/{RUNS[7]}/tasks",
    "_superseded",
    "_superseded/data",
)


@pytest.mark.parametrize("what", [*DOES, "leftovers"])
@pytest.mark.parametrize("folder", LINKED)
def test_a_folder_that_is_a_link_is_not_followed(out: Path, tmp_path: Path, folder: str, what: str) -> None:
    """It lies elsewhere with all that was in it, and what else is there is not touched."""
    interrupt(out)
    place, away = out / "v1" / folder, tmp_path / "home" / "away"
    if what == "leftovers":
        shutil.rmtree(out / "v1" / "_running")
        if folder == "_running":
            (out / "v1" / "_running").mkdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    if folder == "_pins":
        maintenance.pin(str(out), "training", at=1)
    shutil.move(place, away)
    (away / "tasks").mkdir(exist_ok=True)
    (away / "pending").mkdir(exist_ok=True)
    (away / "tasks" / "mine").write_text("precious")
    (away / "mine.parquet").write_text("precious")
    (away / f"{RUNS[6]}-000000-000.parquet").write_text("of no snapshot, and precious")
    place.symlink_to(away)
    before = tree(tmp_path / "home")
    with contextlib.suppress(TesseraError):
        DOES["vacuum" if what == "leftovers" else what](out)
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("what", DOES)
def test_a_shard_that_is_a_link_is_not_read(out: Path, tmp_path: Path, what: str) -> None:
    shard = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    away = tmp_path / "home" / "private.parquet"
    night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
    shutil.move(shard, away)
    shard.symlink_to(away)
    before = tree(tmp_path / "home")
    if what in ("vacuum", "extract"):  # they do not look into it
        DOES[what](out)
    else:
        assert_reported(lambda: DOES[what](out), str(shard), "is a symbolic link")
    assert tree(tmp_path / "home") == before


@pytest.mark.parametrize("what", DOES)
def test_a_shard_that_is_a_pipe_is_one_line(out: Path, what: str) -> None:
    shard = out / "v1" / json.loads(newest(out).read_text())["shards"][0]["path"]
    shard.unlink()
    os.mkfifo(shard)
    night(out / "v1", RUNS[5], ["y"])  # two shards, to be compacted
    if what in ("vacuum", "extract"):
        DOES[what](out)
    else:
        assert_reported(lambda: DOES[what](out), str(shard), "is not a regular file")
    if what == "rollback":
        return
    (found,) = list(snapshots.numbers(str(out / "v1")))[-1:]
    base = snapshots.read(str(out / "v1"), found)
    assert_reported(
        lambda: list(index.of_snapshot(str(out / "v1"), base, RetryPolicy())), str(shard), "is not a regular file"
    )


def test_a_version_that_is_a_link_is_none(out: Path, tmp_path: Path) -> None:
    other = tmp_path / "home" / "other"
    shutil.move(out / "v1", other)
    (out / "v1").symlink_to(other)
    before = tree(other)
    for what in ("compact", "rollback", "forget", "read", "vacuum"):
        assert_reported(lambda what=what: DOES[what](out), "holds no dataset but 'v1', a symbolic link")  # type: ignore[misc]
    assert_reported(lambda: maintenance.vacuum(str(out), 0, "v1"), f"{out}/v1' is a symbolic link")
    assert_reported(lambda: dataset.open(str(out), "v1"), f"{out}/v1' is a symbolic link")
    assert tree(other) == before
    assert ids(other) == ids(out / "v1") == ["a", "b", "c", "e"], "who names the link means it"


def test_the_folder_that_the_user_names_may_be_a_link(out: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(out)
    extract(alias)
    assert ids(alias) == ["a", "b", "c", "e", "new"]
    maintenance.compact(str(alias))
    maintenance.vacuum(str(alias), 0)
    assert ids(alias) == ids(out) == ["a", "b", "c", "e", "new"]


def test_a_deep_tree_in_what_a_run_left_is_vacuumed(out: Path) -> None:
    left = out / "v1" / "_runs" / "20260101T000000-abcd"
    (left / "tasks").mkdir(parents=True)
    (left / "pending").mkdir()
    deep(left / "tasks", 3000)
    deep(left / "pending", 3000)
    maintenance.vacuum(str(out), older_than_s=0)
    assert not (left / "tasks").exists()
    assert not (left / "pending").exists()


@pytest.mark.parametrize("kind", ["file", "link", "a run that is a link"])
def test_one_broken_version_keeps_no_other_from_forgetting(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    night(out / "v1", RUNS[1], ["a", "b"])
    night(out / "v2", RUNS[2], ["a", "c"])
    (out / "v1" / "_running").mkdir(exist_ok=True)
    (out / "v1" / "_running" / f"{RUNS[5]}.json").write_text('{"base": 1, "identity": "x"}')
    tasks = out / "v1" / "_runs" / RUNS[5] / "tasks"
    odd = tasks.parent if kind == "a run that is a link" else tasks
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.write_text("") if kind == "file" else odd.symlink_to(tmp_path)
    maintenance.forget(str(out), ["a"])
    assert (ids(out, version="v1"), ids(out, version="v2")) == (["b"], ["c"])
    begun = out / "a0" / "_running" / f"{RUNS[6]}.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{")
    shutil.rmtree(out / "v1" / "_snapshots")
    (out / "v1" / "_snapshots").symlink_to(tmp_path)
    assert_reported(
        lambda: maintenance.forget(str(out), ["c"]), "forgotten in v2, not yet in v1, a0 (v1: ", "is a symbolic link"
    )
    assert ids(out, version="v2") == []


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_goes_with_the_vacuum(out: Path, kind: str) -> None:
    maintenance.compact(str(out))
    odd = out / "v1" / "_superseded" / "data" / "0"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("/etc/hostname")
    maintenance.vacuum(str(out), 0)
    assert os.listdir(odd.parent) == []
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("name", ["_running", "_leases", "_superseded"])
@pytest.mark.parametrize("what", ["compact", "vacuum", "forget", "rollback", "extract"])
def test_a_file_where_a_folder_is_expected(out: Path, name: str, what: str) -> None:
    shutil.rmtree(out / "v1" / name, ignore_errors=True)
    (out / "v1" / name).write_text("")
    if name == "_superseded" and what in ("compact", "extract"):  # these move nothing here
        DOES[what](out)
    else:
        assert_reported(lambda: DOES[what](out), name)
    kept = {"b", "c", "e"} if (name, what) == ("_superseded", "forget") else {"a", "b", "c", "e"}
    assert set(ids(out)) - {"new"} == kept
