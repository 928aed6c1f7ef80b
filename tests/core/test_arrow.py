"""Tensor columns hold arrays exactly, with any shapes, nulls and slices."""

from __future__ import annotations

import importlib
import mmap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.arrow import adjacent, joined, list_column, pack, unpack, vector_list_column

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


def test_rows_of_one_buffer_are_one_array_without_a_copy() -> None:
    whole = np.arange(24.0).reshape(4, 2, 3)
    found = adjacent(list(whole))
    assert found is not None
    assert np.shares_memory(found, whole)
    np.testing.assert_array_equal(found, whole)
    again = adjacent(list(found))
    assert again is not None, "of a view too"
    np.testing.assert_array_equal(joined(list(whole)), whole.reshape(8, 3))
    rows = unpack(pack([row.astype(np.uint8) for row in whole]))
    assert adjacent([row for row in rows if row is not None]) is not None, "as a table's rows lie"


@pytest.mark.parametrize(
    "rows",
    [
        lambda whole: [whole[0], whole[2]],
        lambda whole: [whole[1], whole[0]],
        lambda whole: [whole[0], whole[0]],
        lambda whole: [whole[0], whole[1, :1]],
        lambda whole: [whole[0, :, :2], whole[1, :, :2]],
        lambda whole: [whole[0], whole[1].astype(np.float32)],
    ],
)
def test_what_does_not_lie_in_a_row_is_copied(rows) -> None:
    parts = rows(np.arange(24.0).reshape(4, 2, 3))
    assert adjacent(parts) is None
    if len({part.shape[1] for part in parts}) == 1:
        np.testing.assert_array_equal(joined(parts), np.concatenate(parts))


def test_two_buffers_that_happen_to_be_neighbours_are_two() -> None:
    """A view of both would keep only the first buffer alive: the other may be freed and overwritten."""
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    halves = [np.frombuffer(memory, np.uint8, mmap.PAGESIZE, start) for start in (0, mmap.PAGESIZE)]
    one, other = (_Own(half).array for half in halves)
    assert other.__array_interface__["data"][0] == one.__array_interface__["data"][0] + mmap.PAGESIZE
    assert adjacent([one, other]) is None


class _Own:
    """A buffer whose memory has an owner of its own."""

    def __init__(self, memory: np.ndarray) -> None:
        self.__array_interface__ = dict(memory.__array_interface__)
        self.array = np.asarray(self)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_tokens_are_cast_as_numpy_casts_them(kind: type) -> None:
    importlib.import_module("torch")  # casts, if it is loaded

    rng = np.random.default_rng(2)
    rows = [rng.normal(0, 10 ** rng.uniform(-9, 4), (n, 8)).astype(kind) for n in (3, 0, 5, 1)]
    column = vector_list_column([rows[0], None, *rows[1:]], pa.float16(), 8)
    assert column.null_count == 1
    flat = column.values.values.to_numpy()
    np.testing.assert_array_equal(flat.view(np.int16), np.concatenate(rows).astype(np.float16).ravel().view(np.int16))
    mixed = vector_list_column([rows[0], rows[2].astype(np.float16)], pa.float16(), 8)
    expected = np.concatenate([rows[0].astype(np.float16), rows[2].astype(np.float16)])
    np.testing.assert_array_equal(mixed.values.values.to_numpy(), expected.ravel())
