"""Every planned row and cell is accounted for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline.stages.rows import put
from tests.dataset.shards.test_writer import rows, write


def test_a_lost_row_is_noticed(tmp_path: Path) -> None:
    whole = rows(["a", "a", "a", "b"], {}, windows=[0, 1, 2, 0])
    assert write(tmp_path / "1", whole).problems() == []
    lost = write(tmp_path / "2", whole.take([0, 2, 3]))
    assert lost.problems() == ["4 windows were cut, 3 rows arrived"]
    blank = put(rows(["a"], {}, absent=(0,)), "cells", pa.array([1], pa.int32()))
    assert any("1 cells planned, 0 written" in problem for problem in write(tmp_path / "3", blank).problems())
