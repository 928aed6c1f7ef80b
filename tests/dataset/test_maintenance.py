"""Compact, rollback, forget and vacuum: what readers see before, during and after, also in old snapshots."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset._maintenance import forget as forgetting
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import FileSet
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff.result import sample_hash
from pipeline.dataset.shards import reader
from tests.support.dataset_fixtures import RUNS, added, ids, night, plain, write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three runs: a b c d; then b again and e; then a failure, and d is deleted."""
    root = tmp_path / "out" / "v1"
    night(root, RUNS[1], ["a", "b", "c", "d"])
    night(root, RUNS[2], ["b", "e"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    night(root, RUNS[3], ["x"], {0: "corrupt"}, drops={f"data/{RUNS[1]}-000000-000.parquet": [3]})
    return tmp_path / "out"


def test_every_snapshot_reads_as_it_was(out: Path) -> None:
    assert ids(out) == ["a", "b", "c", "e"]
    assert [ids(out, snapshot=n) for n in (1, 2, 3)] == [["a", "b", "c", "d"], ["a", "b", "c", "d", "e"], ids(out)]
    assert plain(out / "v1") == ["a", "b", "b", "c", "d", "e"]


def test_after_compaction_the_folder_has_the_rows_of_the_snapshot(out: Path) -> None:
    pinned = dataset.open(str(out), snapshot=2)
    before = pinned.to_arrow().to_pylist()
    values = dataset.open(str(out)).to_arrow().sort_by("sample_id")
    done = maintenance.compact(str(out))
    assert (done.snapshot, done.removed) == (4, 2)
    assert plain(out / "v1") == ids(out) == ["a", "b", "c", "e"]
    assert dataset.open(str(out)).to_arrow().sort_by("sample_id").equals(values)
    assert len(os.listdir(out / "v1" / "data")) == 1
    assert pinned.to_arrow().to_pylist() == before
    assert [row for batch in pinned.batches() for row in batch.to_pylist()] == before
    assert dataset.open(str(out)).num_failures == 1
    again = maintenance.compact(str(out))
    assert (again.snapshot, again.rewritten) == (4, 0)


def test_compaction_keeps_the_lineage_and_closes_shards_by_size(out: Path) -> None:
    maintenance.compact(str(out), shard_bytes=1024)
    footers = [pq.read_schema(path).metadata[b"tessera"].decode() for path in (out / "v1" / "data").iterdir()]
    assert len(footers) > 1, "files of the size asked for are left alone"
    assert all('"model": "m"' in footer for footer in footers)
    assert sum('"compacted"' in footer for footer in footers) == 1


def test_rollback_back_and_forward(out: Path) -> None:
    maintenance.compact(str(out))
    done = maintenance.rollback(str(out), 1)
    assert done.snapshot == 5
    assert ids(out) == plain(out / "v1") == ["a", "b", "c", "d"]
    maintenance.rollback(str(out), 4)
    assert ids(out) == plain(out / "v1") == ["a", "b", "c", "e"]
    assert ids(out, snapshot=5) == ["a", "b", "c", "d"]
    with pytest.raises(ConfigError, match=r"--to: there is no snapshot 9 .*one of: 1, 2, 3, 4, 5, 6"):
        maintenance.rollback(str(out), 9)


def test_vacuum_keeps_the_newest_and_recent_snapshots(out: Path) -> None:
    maintenance.compact(str(out))
    (kept,) = maintenance.vacuum(str(out), maintenance.seconds("7d"))
    assert (kept.removed, sorted(snapshots.numbers(str(out / "v1")))) == (0, [1, 2, 3, 4])
    (done,) = maintenance.vacuum(str(out), 0)
    assert done.removed == 2
    assert done.bytes > 0
    assert list(snapshots.numbers(str(out / "v1"))) == [4, 5]
    assert ids(out) == ["a", "b", "c", "e"]
    assert [name for _, _, files in os.walk(out / "v1" / "_superseded") for name in files] == []
    with pytest.raises(ConfigError, match="there is no snapshot 1"):
        dataset.open(str(out), snapshot=1)


def test_a_ray_dataset_reads_shards_that_moved_before_ray_came_to_them(out: Path, ray_session: Any) -> None:
    rows = dataset.open(str(out), snapshot=1).to_ray(["sample_id"])
    maintenance.compact(str(out))
    assert sorted(row["sample_id"] for row in rows.take_all()) == ["a", "b", "c", "d"]


def test_age_counts_from_when_a_snapshot_was_replaced(out: Path) -> None:
    """A snapshot that was created weeks ago but replaced just now is not old."""
    for number in (1, 2, 3):
        path = out / "v1" / "_snapshots" / f"{number:08d}.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "created": f"2026-01-0{number}T00:00:00+00:00"}))
    pinned = dataset.open(str(out))
    maintenance.compact(str(out))
    maintenance.vacuum(str(out), maintenance.seconds("7d"))
    assert list(snapshots.numbers(str(out / "v1"))) == [3, 4, 5]
    assert sorted(pinned.to_arrow(["sample_id"])["sample_id"].to_pylist()) == ["a", "b", "c", "e"]


def test_vacuum_deletes_the_files_of_a_killed_compaction(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            maintenance.compact(str(out))
    left = [path for path in out.rglob("*.parquet") if "pending" in path.parts]
    assert left
    maintenance.forget(str(out), ["b"])
    maintenance.vacuum(str(out), 0)
    assert [path for path in out.rglob("*.parquet") if "pending" in path.parts] == []
    held = {i for path in out.rglob("*.parquet") for i in pq.read_table(path).column("sample_id").to_pylist()}
    assert "b" not in held


def test_a_compaction_suspended_during_a_vacuum_commits_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = snapshots.commit

    def late(root: str, snapshot: snapshots.Snapshot) -> bool:
        monkeypatch.setattr(snapshots, "commit", real)
        for lease in (out / "v1" / "_leases").iterdir():  # as if the lease had expired
            values = json.loads(lease.read_text())
            lease.write_text(json.dumps({**values, "released": True}))
        maintenance.vacuum(str(out), 0)
        return real(root, snapshot)

    monkeypatch.setattr(snapshots, "commit", late)
    with pytest.raises(TesseraError, match="another run committed snapshot 4"):
        maintenance.compact(str(out))
    assert ids(out) == ["a", "b", "c", "e"]


def test_a_vacuum_suspended_during_a_rollback_deletes_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rollback has committed, but has not yet moved its files out of the folder that the vacuum deletes from."""
    maintenance.compact(str(out))
    delete, roll_forward = snapshots.delete, snapshots.roll_forward
    committed = []

    def late(root: str, number: int) -> None:
        monkeypatch.setattr(snapshots, "delete", delete)
        for lease in (out / "v1" / "_leases").iterdir():
            lease.write_text(json.dumps({**json.loads(lease.read_text()), "released": True}))
        monkeypatch.setattr(snapshots, "roll_forward", lambda *of: roll_forward(*of) if not committed else None)
        monkeypatch.setattr(snapshots, "commit", _then(snapshots.commit, committed.append))
        maintenance.rollback(str(out), 3)
        monkeypatch.setattr(snapshots, "roll_forward", roll_forward)
        delete(root, number)

    monkeypatch.setattr(snapshots, "delete", late)
    with pytest.raises(TesseraError, match="the lease was taken over by rollback"):
        maintenance.vacuum(str(out), 0)
    assert committed
    assert ids(out) == ["a", "b", "c", "e"]


def _then(real: Any, after: Any) -> Any:
    def both(*of: Any) -> Any:
        done = real(*of)
        after(of)
        return done

    return both


def test_a_vacuum_leaves_an_interrupted_run_to_be_continued(out: Path) -> None:
    root = str(out / "v1")
    with Transaction(root, "extract", RUNS[4]) as transaction:
        transaction.resume_interrupted("identity")
        write(root, RUNS[4], ["y"])
    maintenance.vacuum(str(out), 0)
    with Transaction(root, "extract", RUNS[5]) as transaction:
        transaction.resume_interrupted("identity")
        assert [one.run_id for one in transaction.killed] == [RUNS[4]]
        transaction.commit(transaction.next_snapshot({}, {}, FileSet()))
    assert ids(out) == ["a", "b", "c", "e", "y"]


def test_forgotten_samples_are_removed_and_stay_removed(out: Path) -> None:
    (done,) = maintenance.forget(str(out), ["b", "x", "never"])
    assert done.removed == 2
    assert ids(out) == ["a", "c", "e"]
    assert "b" not in plain(out / "v1")
    assert dataset.open(str(out)).num_failures == 0
    newest = snapshots.newest(str(out / "v1"))
    assert newest is not None
    assert len(newest.forgotten) == 3
    assert ids(out, snapshot=3) == ["a", "b", "c", "e"], "until the vacuum"
    with pytest.raises(ConfigError, match="forgotten since"):
        maintenance.rollback(str(out), 3)
    maintenance.vacuum(str(out), maintenance.seconds("7d"))
    assert list(snapshots.numbers(str(out / "v1"))) == [4, 5]
    files = [path for path in out.rglob("*.parquet") if "sample_id" in pq.read_schema(path).names]
    held = [i for path in files for i in pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()]
    assert set(held) == {"a", "c", "e", *(["d"] if "d" in held else [])}
    assert "b" not in held


def test_compaction_refuses_an_interrupted_run_and_forget_discards_it(out: Path) -> None:
    write(out / "v1", RUNS[4], ["y"])
    running = out / "v1" / "_running" / f"{RUNS[4]}.json"
    running.parent.mkdir(exist_ok=True)
    running.write_text('{"base": 3, "identity": "identity"}')
    with pytest.raises(TesseraError, match=rf"run {RUNS[4]} was interrupted: continue it"):
        maintenance.compact(str(out))
    maintenance.forget(str(out), ["y"])
    assert not running.exists()
    assert "y" not in plain(out / "v1")


def test_every_version_forgets(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        night(tmp_path / version, RUNS[1], ["a", "b"])
    assert [one.version for one in maintenance.forget(str(tmp_path), ["a"])] == ["v1", "v2"]
    assert ids(tmp_path, version="v1") == ids(tmp_path, version="v2") == ["b"]


def test_a_version_without_a_snapshot_forgets_too(tmp_path: Path) -> None:
    night(tmp_path / "v1", RUNS[1], ["a", "b"])
    with Transaction(str(tmp_path / "v2"), "extract", RUNS[2]) as transaction:  # killed before its first commit
        transaction.resume_interrupted("identity")
        write(tmp_path / "v2", RUNS[2], ["a", "b"])
    maintenance.forget(str(tmp_path), ["a"])
    assert catalog.forgotten(str(tmp_path)) == (sample_hash("a"),)
    assert list((tmp_path / "v2").rglob("*.parquet")) == []
    assert os.listdir(tmp_path / "v2" / "_running") == []


@pytest.mark.parametrize("when", ["while another version is rewritten", "while it is waited for"])
def test_a_version_that_commits_meanwhile_forgets_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    night(tmp_path / "v1", RUNS[1], ["a", "b"])
    first = Transaction(str(tmp_path / "v2"), "extract", RUNS[2])
    first.__enter__()
    first.resume_interrupted("identity")
    written = write(tmp_path / "v2", RUNS[2], ["a", "b"])
    # while `forget` rewrites v1, or while it waits for the lease of v2
    name = "has_samples" if when == "while another version is rewritten" else "Transaction"
    late = getattr(forgetting, name)

    def meanwhile(*given: Any) -> Any:
        if not first.committed and (name == "has_samples" or given[0].endswith("v2")):
            first.commit(first.next_snapshot({}, {}, added(written)))
            first.__exit__(None, None, None)
        return late(*given)

    monkeypatch.setattr(forgetting, name, meanwhile)
    assert [one.version for one in maintenance.forget(str(tmp_path), ["a"])] == ["v1", "v2"]
    assert ids(tmp_path, version="v1") == ids(tmp_path, version="v2") == ["b"]
    newest = snapshots.newest(str(tmp_path / "v2"))
    assert newest is not None
    assert newest.forgotten == (sample_hash("a"),)


def test_ages() -> None:
    ages = {"7d": 604_800, "90m": 5400, "0s": 0, "1.5h": 5400, "2w": 1_209_600}
    assert {age: maintenance.seconds(age) for age in ages} == ages


def test_wrong_arguments_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--older-than: found '7 days'; a number and one of s, m, h, d, w"):
        maintenance.seconds("7 days")
    for age in ("99999999999w", "9" * 400 + "s"):
        with pytest.raises(ConfigError, match=r"--older-than: found '9+[ws]'; at most 5200w"):
            maintenance.seconds(age)
    for call in (lambda: maintenance.compact(str(tmp_path)), lambda: maintenance.forget(str(tmp_path), ["a"])):
        with pytest.raises(ConfigError, match="holds no dataset"):
            call()
    night(tmp_path / "v1", RUNS[1], ["a"])
    with pytest.raises(ConfigError, match=r"--version: there is no version 'v7' .*one of: v1"):
        maintenance.compact(str(tmp_path), "v7")


def test_the_current_version_is_a_choice(tmp_path: Path) -> None:
    night(tmp_path / "v1", RUNS[1], ["a"])
    night(tmp_path / "v2", RUNS[2], ["b"])
    maintenance.use(str(tmp_path), "v1")
    assert ids(tmp_path) == ["a"]
    maintenance.use(str(tmp_path), "v2")
    assert ids(tmp_path) == ["b"]


def test_on_s3_reading_continues_when_a_shard_is_moved(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is moved while it is read, after the first block."""
    night("s3://corpus/out/v1", RUNS[1], [f"{i:06}" for i in range(3000)])
    newest = snapshots.newest("s3://corpus/out/v1")
    assert newest is not None
    (shard,) = newest.shards
    whole = s3.cat_file(f"corpus/out/v1/{shard.path}")
    assert len(whole) > 10_000
    with monkeypatch.context() as patch:
        patch.setattr(type(s3), "default_block_size", 1000)
        file = reader.open_file("s3://corpus/out/v1", shard)
    with file:
        assert file.read(100) == whole[:100]
        maintenance.forget("s3://corpus/out", ["000000"])
        assert not s3.exists(f"corpus/out/v1/{shard.path}")
        assert file.read() == whole[100:]
        file.seek(-50, os.SEEK_END)
        assert file.read() == whole[-50:]


def test_on_s3(s3: Any) -> None:
    """On S3 a move is a copy: runs, a reader of an old snapshot, compaction, rollback, vacuum."""
    root, out = "s3://corpus/out/v1", "s3://corpus/out"
    night(root, RUNS[1], ["a", "b", "c"])
    night(root, RUNS[2], ["b"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    old = dataset.open(out, snapshot=1)
    values = old.to_arrow()
    assert maintenance.compact(out).removed == 1
    assert ids(out) == ["a", "b", "c"]
    assert len(s3.ls("corpus/out/v1/data", refresh=True)) == 1
    assert old.to_arrow().equals(values)
    maintenance.rollback(out, 1)
    assert dataset.open(out).to_arrow().equals(values)
    maintenance.vacuum(out, 0)
    assert s3.find("corpus/out/v1/_superseded") == []
    assert ids(out) == ["a", "b", "c"]
