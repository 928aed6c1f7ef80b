"""Footers are kept up to a limit, and not pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.loading.memory import footers
from pipeline.dataset.loading.memory.footers import Footers


@pytest.fixture
def footer(tmp_path: Path) -> pq.FileMetaData:
    pq.write_table(pa.table({"number": [1]}), tmp_path / "a.parquet")
    return pq.read_metadata(tmp_path / "a.parquet")


def test_the_oldest_are_forgotten_over_the_limit(footer: pq.FileMetaData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "_MAX_BYTES", 2 * footer.serialized_size)
    kept = Footers()
    for shard in (7, 3, 5):
        assert kept.get(shard) is None
        kept.keep(shard, footer)
    assert [kept.get(shard) for shard in (7, 3, 5)] == [None, footer, footer]
    monkeypatch.setattr(footers, "_MAX_BYTES", 1)
    kept.keep(7, footer)  # the newest is always kept
    assert [kept.get(shard) for shard in (7, 3, 5)] == [footer, None, None]


def test_a_pickled_one_is_empty(footer: pq.FileMetaData) -> None:
    kept = Footers()
    kept.keep(0, footer)
    assert pickle.loads(pickle.dumps(kept)).get(0) is None
