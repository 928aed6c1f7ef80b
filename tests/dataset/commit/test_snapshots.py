"""A snapshot is created once, says what is live, and its moves may be done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.commit import catalog, data_files, snapshots
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.snapshots import Snapshot

RUN, SHA = "20260101T000000-0001", "0" * 64


def name(part: str) -> str:
    """Of a shard."""
    return f"data/{RUN}-{part}.parquet"


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def make(before: Snapshot | None, *shards: File) -> Snapshot:
    return snapshots.following(before, RUN, "extract", {"features": {}}, list(shards), [], [])


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = File(name("a"), 9, 100, SHA, (1, 4), f"_runs/{RUN}/pending/{name('a')}")
    one = snapshots.following(None, RUN, "compact", {"features": {"f": {}}}, [file], [], [], ("f" * 64,))
    assert snapshots.commit(str(tmp_path), one)
    assert snapshots.newest(str(tmp_path)) == one
    assert (file.live, file.without({0, 4}).deleted) == (7, (0, 1, 4))


def test_only_one_of_a_number(tmp_path: Path) -> None:
    assert snapshots.commit(str(tmp_path), make(None))
    assert not snapshots.commit(str(tmp_path), make(None, File(name("b"), 1, 1, SHA)))
    newest = snapshots.newest(str(tmp_path))
    assert newest is not None
    assert newest.shards == ()


def test_only_one_of_a_number_on_s3(s3: Any) -> None:
    first = make(None)
    assert snapshots.commit("s3://corpus/v1", first)
    assert snapshots.commit("s3://corpus/v1", first), "its own, put again after an answer that was lost"
    assert not snapshots.commit("s3://corpus/v1", make(None, File(name("b"), 1, 1, SHA)))
    assert list(snapshots.numbers("s3://corpus/v1")) == [1]


def test_moves_are_done_once_or_twice(tmp_path: Path) -> None:
    put(tmp_path, name("old"), name("same"), f"_runs/{RUN}/pending/{name('new')}")
    same, old = File(name("same"), 1, 1, SHA), File(name("old"), 1, 1, SHA)
    first = make(None, same, old)
    second = make(first, same, File(name("new"), 1, 1, SHA, pending=f"_runs/{RUN}/pending/{name('new')}"))
    assert second.retired == (name("old"),)
    for _ in range(2):
        snapshots.settle(str(tmp_path), second)
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
            f"{RUN}-{one}.parquet" for one in ("new", "same")
        ]
        assert (tmp_path / "_superseded" / name("old")).read_text() == name("old")
    assert data_files.find(str(tmp_path), old) == f"_superseded/{name('old')}"
    with pytest.raises(FileNotFoundError):
        data_files.find(str(tmp_path), File(name("never"), 1, 1, SHA))


def test_a_file_without_a_live_row_is_named_no_more(tmp_path: Path) -> None:
    first = make(None, File(name("a"), 2, 1, SHA))
    second = make(first, first.shards[0].without([0, 1]))
    assert (second.shards, second.retired, second.number) == ((), (name("a"),), 2)


def test_versions(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert (catalog.current(out), catalog.versions(out), catalog.next_version(out)) == (None, [], "v1")
    for name in ("v1", "v3", "mine"):
        snapshots.commit(f"{out}/{name}", make(None))
    put(tmp_path, "v4/data/x.parquet")  # a run that was killed before its first commit goes on there
    assert catalog.versions(out) == ["mine", "v1", "v3"]
    assert catalog.next_version(out) == "v4"
    catalog.make_current(out, "v1")
    assert catalog.current(out) == "v1"
    catalog.make_current(out, "v4")
    assert catalog.current(out) == "v1", "until v4 has a commit"
    snapshots.commit(f"{out}/v4", make(None))
    assert catalog.current(out) == "v4"


def test_a_newer_contract_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "_snapshots/00000001.json")
    (tmp_path / "_snapshots/00000001.json").write_text('{"contract": 99}')
    with pytest.raises(ConfigError, match="of contract 99, this reader knows 2; update tessera"):
        snapshots.newest(str(tmp_path))
