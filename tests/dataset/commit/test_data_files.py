"""Files of a snapshot: moving them, and finding them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.commit import data_files, snapshots
from pipeline.dataset.commit.data_files import File
from tests.dataset.commit.test_snapshots import RUN, SHA, make, name, put


def test_moves_can_be_repeated(tmp_path: Path) -> None:
    put(tmp_path, name("old"), name("same"), f"_runs/{RUN}/pending/{name('new')}")
    same, old = File(name("same"), 1, 1, SHA), File(name("old"), 1, 1, SHA)
    first = make(None, same, old)
    second = make(first, same, File(name("new"), 1, 1, SHA, pending=f"_runs/{RUN}/pending/{name('new')}"))
    assert second.retired == (name("old"),)
    for _ in range(2):
        snapshots.roll_forward(str(tmp_path), second)
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
            f"{RUN}-{one}.parquet" for one in ("new", "same")
        ]
        assert (tmp_path / "_superseded" / name("old")).read_text() == name("old")
    assert data_files.find(str(tmp_path), old) == f"_superseded/{name('old')}"
    with pytest.raises(FileNotFoundError):
        data_files.find(str(tmp_path), File(name("never"), 1, 1, SHA))


def test_a_file_without_live_rows_is_left_out(tmp_path: Path) -> None:
    first = make(None, File(name("a"), 2, 1, SHA))
    second = make(first, first.shards[0].without([0, 1]))
    assert (second.shards, second.retired, second.number) == ((), (name("a"),), 2)
