"""A snapshot is created exclusively, and lists the live files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import File, FileSet
from pipeline.dataset.commit.snapshots import Snapshot

RUN, SHA = "20260101T000000-0001", "0" * 64


def name(part: str) -> str:
    """Returns the path of a shard."""
    return f"data/{RUN}-{part}.parquet"


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def make(before: Snapshot | None, *shards: File) -> Snapshot:
    return snapshots.next_snapshot(before, RUN, "extract", {"features": {}}, FileSet(shards))


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = File(name("a"), 9, 100, SHA, (1, 4), f"_runs/{RUN}/pending/{name('a')}")
    one = snapshots.next_snapshot(None, RUN, "compact", {"features": {"f": {}}}, FileSet((file,)), ("f" * 64,))
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
    assert snapshots.commit("s3://corpus/v1", first), "its own snapshot, written again after a response was lost"
    assert not snapshots.commit("s3://corpus/v1", make(None, File(name("b"), 1, 1, SHA)))
    assert list(snapshots.numbers("s3://corpus/v1")) == [1]


def test_a_newer_contract_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "_snapshots/00000001.json")
    (tmp_path / "_snapshots/00000001.json").write_text('{"contract": 99}')
    with pytest.raises(ConfigError, match="of contract 99, this reader knows 2; update tessera"):
        snapshots.newest(str(tmp_path))
