"""If a writer is killed at any point, the next one finds the old or the new snapshot complete, and finishes it."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import storage
from pipeline.core.errors import TesseraError
from pipeline.dataset import maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import FileSet
from pipeline.dataset.commit.transaction import Transaction
from tests.support.dataset_fixtures import RUNS, added, ids, night, plain, write


class InterruptedRun(BaseException):
    """Simulates the end of the process: no code of the writer runs after it."""


def _steps(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Raises before change ``at`` of the file system. Returns the names of the changes so far."""
    done: list[str] = []
    for name in ("move", "remove", "remove_folder", "publish", "publish_new"):
        real = getattr(storage, name)

        def step(*args: Any, real: Any = real, name: str = name) -> Any:
            if len(done) == at:
                raise InterruptedRun
            done.append(name)
            return real(*args)

        monkeypatch.setattr(storage, name, step)
    return done


def test_killed_before_each_step_of_a_commit(tmp_path: Path) -> None:
    """Between any two steps, readers see the old or the new rows, and the next run finishes the work."""
    for at in itertools.count():
        out = tmp_path / str(at)
        root = out / "v1"
        night(root, RUNS[1], ["a", "b", "c"])
        first = f"data/{RUNS[1]}-000000-000.parquet"
        with pytest.MonkeyPatch.context() as patch:
            transaction = Transaction(str(root), "extract", RUNS[2])
            transaction.__enter__()
            transaction.resume_interrupted("identity")
            written = write(root, RUNS[2], ["b"], replaces=True)
            next_snapshot = transaction.next_snapshot({}, {0: [[1]]}, added(written))  # type: ignore[list-item]
            done = _steps(patch, at)
            killed = False
            try:
                transaction.commit(next_snapshot)
            except InterruptedRun:
                killed = True
        assert ids(out) == ["a", "b", "c"]
        committed = "publish_new" in done
        newest = snapshots.newest(str(root))
        assert newest is not None
        assert newest.number == (2 if committed else 1)
        transaction.lease._heartbeat.close()
        transaction.lease.me = transaction.lease.me.__class__(**{**vars(transaction.lease.me), "pid": 2**22 + 1})
        transaction.lease._write(transaction.lease.me)
        with Transaction(str(root), "extract", RUNS[3]) as after:
            after.resume_interrupted("identity")
            assert len(after.killed) == (0 if committed else 1)
            if committed:
                after.close()
            else:
                after.commit(after.next_snapshot({}, {0: [[1]]}, FileSet()))  # type: ignore[list-item]
        assert ids(out) == ["a", "b", "c"]
        assert set(plain(root)) == {"a", "b", "c"}
        assert os.listdir(root / "_running") == []
        assert (root / first).exists()
        pending = [path for path in root.rglob("*") if "pending" in path.parts and path.is_file()]
        assert pending == []
        if not killed:
            break
    assert at > 4


def test_work_of_another_config_or_base_is_not_adopted(tmp_path: Path) -> None:
    for identity, run_id in (("other", RUNS[1]), ("identity", RUNS[2])):
        with Transaction(str(tmp_path), "extract", run_id) as transaction:
            transaction.resume_interrupted(identity)
            write(tmp_path, run_id, [run_id])
    with Transaction(str(tmp_path), "extract", RUNS[3]) as transaction:
        transaction.resume_interrupted("identity")
        assert [one.run_id for one in transaction.killed] == [RUNS[2]]
        assert plain(tmp_path) == [RUNS[1], RUNS[2]], "the other run may only be suspended, and commit later"
        transaction.commit(transaction.next_snapshot({}, {}, FileSet()))
    assert plain(tmp_path) == [RUNS[2]], "files of the other run are deleted"
    assert os.listdir(tmp_path / "_running") == []


def test_a_suspended_run_that_commits_first_keeps_its_files(tmp_path: Path) -> None:
    """A run of another config takes the lease over and discards the work of a suspended run, which then commits."""
    night(tmp_path, RUNS[1], ["a"])
    slow = Transaction(str(tmp_path), "extract", RUNS[2], ttl_s=0.5)
    with slow:
        slow.resume_interrupted("other")
        written = write(tmp_path, RUNS[2], ["b"])
        next_snapshot = slow.next_snapshot({}, {}, added(written))
        slow.lease.check()
        slow.lease._heartbeat.close()  # suspended between the last check and the creation of the snapshot
        with Transaction(str(tmp_path), "extract", RUNS[3], ttl_s=0.5) as other:
            other.resume_interrupted("identity")
            assert other.discarded == [RUNS[2]]
            assert snapshots.commit(str(tmp_path), next_snapshot)
            with pytest.raises(TesseraError, match="committed snapshot 2"):
                other.commit(other.next_snapshot({}, {}, added(write(tmp_path, RUNS[3], ["c"]))))
    assert set(plain(tmp_path)) >= {"a", "b"}


@pytest.mark.parametrize("when", ["before", "at"])
def test_a_writer_suspended_before_its_moves_finds_them_done(tmp_path: Path, when: str) -> None:
    """A suspended compaction, whose files the next run moves to their places, and another compaction supersedes."""
    root = tmp_path / "v1"
    night(root, RUNS[1], ["a"])
    night(root, RUNS[2], ["b"])
    real = snapshots.commit if when == "before" else snapshots.roll_forward
    calls = []

    def late(at: str, snapshot: snapshots.Snapshot) -> bool | None:
        done = real(at, snapshot) if when == "before" else None
        calls.append(snapshot.number)
        if calls == ([3] if when == "before" else [2, 3]):
            for lease in (root / "_leases").iterdir():
                lease.write_text(json.dumps({**json.loads(lease.read_text()), "released": True}))
            night(root, RUNS[3], ["c"])
            maintenance.compact(str(tmp_path))
        return done if when == "before" else real(at, snapshot)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "commit" if when == "before" else "roll_forward", late)
        maintenance.compact(str(tmp_path))
    assert max(calls) == 5
    assert ids(tmp_path) == ["a", "b", "c"]
    assert set(plain(root)) == {"a", "b", "c"}


@pytest.mark.parametrize("how", ["night", "compact"])
def test_a_writer_suspended_while_others_commit_deletes_none_of_their_files(tmp_path: Path, how: str) -> None:
    """The writer has nothing to do at a snapshot that is no longer the newest, or is suspended after its own commit."""
    root = tmp_path / "v1"
    night(root, RUNS[1], ["a"])
    night(root, RUNS[2], ["b"])
    slow, committed = (Transaction(str(root), "extract", run, ttl_s=0.5) for run in (RUNS[3], RUNS[4]))
    slow.__enter__()
    slow.resume_interrupted("identity")
    slow.lease._heartbeat.close()
    with committed, pytest.MonkeyPatch.context() as patch:
        committed.resume_interrupted("identity")
        next_snapshot = committed.next_snapshot({}, {}, added(write(root, RUNS[4], ["c"])))

        def slept(*_: object) -> None:
            committed.lease._heartbeat.close()
            patch.undo()
            if how == "night":
                with Transaction(str(root), "extract", RUNS[5], ttl_s=0.5) as other:
                    other.resume_interrupted("identity")
                    other.commit(other.next_snapshot({}, {}, added(write(root, RUNS[5], ["d"]))))
            else:
                for lease in (root / "_leases").iterdir():
                    lease.write_text(json.dumps({**json.loads(lease.read_text()), "released": True}))
                maintenance.compact(str(tmp_path))

        patch.setattr(snapshots, "roll_forward", slept)
        committed.commit(next_snapshot)
    expected = ["a", "b", "c", "d"] if how == "night" else ["a", "b", "c"]
    assert ids(tmp_path) == expected
    slow.close()
    slow.lease.lost = True
    slow.__exit__(None, None, None)
    assert ids(tmp_path) == expected
    assert set(plain(root)) == set(expected)


def test_an_adopted_file_without_live_rows_is_deleted(tmp_path: Path) -> None:
    with Transaction(str(tmp_path), "extract", RUNS[1]) as transaction:
        transaction.resume_interrupted("identity")
        write(tmp_path, RUNS[1], ["a", "b"])
    with Transaction(str(tmp_path), "extract", RUNS[2]) as transaction:
        transaction.resume_interrupted("identity")
        gone = {0: [np.array([0, 1])]}
        written = write(tmp_path, RUNS[2], ["c"])
        transaction.commit(transaction.next_snapshot({}, gone, added(written)))
    assert plain(tmp_path) == ["c"]


def test_files_of_other_programs_stay(tmp_path: Path) -> None:
    night(tmp_path, RUNS[1], ["a"])
    (tmp_path / "data" / "notes.parquet").write_text("mine")
    (tmp_path / "data" / f"{RUNS[2]}-000000-000.parquet.ab12.tmp").write_text("half")
    with Transaction(str(tmp_path), "extract", RUNS[2]) as transaction:
        transaction.resume_interrupted("identity")
    assert sorted(os.listdir(tmp_path / "data")) == [f"{RUNS[1]}-000000-000.parquet", "notes.parquet"]


def test_a_writer_suspended_during_another_commit_commits_nothing(tmp_path: Path) -> None:
    night(tmp_path, RUNS[1], ["a"])
    with Transaction(str(tmp_path), "extract", RUNS[2]) as slow:
        slow.resume_interrupted("identity")
        written = write(tmp_path, RUNS[2], ["b"])
        base = snapshots.newest(str(tmp_path))
        assert snapshots.commit(str(tmp_path), snapshots.next_snapshot(base, RUNS[3], "extract", {}, FileSet()))
        with pytest.raises(TesseraError, match=r"another run committed snapshot 2 .*run again to continue"):
            slow.commit(slow.next_snapshot({}, {}, added(written)))
