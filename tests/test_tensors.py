"""Tensor columns hold arrays exactly, whatever their shapes, nulls and slices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tensors import list_column, pack, unpack, vector_list_column

_shapes = st.lists(st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=1, max_size=4)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(_shapes, st.sampled_from(["uint8", "int32", "float16", "float32", "float64"]), st.integers(0, 6))
def test_any_shapes_come_back(shapes: list[list[int] | None], dtype: str, cut: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [None if s is None else rng.integers(0, 99, s).astype(dtype) for s in shapes]
    column = pack(arrays)
    back = unpack(pa.chunked_array([column.slice(0, cut), column.slice(cut)]))
    assert len(back) == len(arrays)
    for before, after in zip(arrays, back, strict=True):
        if before is None:
            assert after is None
        else:
            assert after is not None
            assert after.shape == before.shape
            np.testing.assert_array_equal(after, before)


def test_a_column_holds_one_dtype() -> None:
    with pytest.raises(AssertionError, match="one dtype"):
        pack([np.zeros(1, np.uint8), np.zeros(1, np.float32)])


def test_stored_columns_read_back_from_parquet(tmp_path) -> None:
    vectors = [np.arange(3.0), None, np.zeros(0)]
    tokens = [np.arange(6.0).reshape(2, 3), None, np.zeros((0, 3))]
    table = pa.table(
        {
            "v": list_column(vectors, pa.float32()),
            "t": vector_list_column(tokens, pa.float16(), 3),
            "i": list_column([np.array([1, 2]), None, np.array([], int)], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    back = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert back["v"] == [[0, 1, 2], None, []]
    assert back["t"] == [[[0, 1, 2], [3, 4, 5]], None, []]
    assert back["i"] == [[1, 2], None, []]
