"""The values of a column with the bounds of its rows, from arrays that pyarrow makes in every way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.dataset.collate.ragged import Ragged, mask, padded, writable

IDS: list[Any] = [[1, 2], None, [], [3], [4, 5, 6]]
TOKENS: list[Any] = [None if ids is None else [[i, -i] for i in ids] for ids in IDS]


def lists(ragged: Ragged) -> list[Any]:
    """Returns the rows as Python values."""
    bounds = zip(ragged.offsets[:-1], ragged.offsets[1:], ragged.valid, strict=True)
    return [ragged.values[start:end].tolist() if is_valid else None for start, end, is_valid in bounds]


@pytest.mark.parametrize("cut", [(0, 5), (1, 3), (2, 1), (4, 1), (0, 0)])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_slices(cut: tuple[int, int], kind: Any) -> None:
    start, count = cut
    ids = pa.array(IDS, kind(pa.int32())).slice(start, count)
    assert lists(Ragged.of_array(ids, None)) == IDS[start : start + count]
    tokens = pa.array(TOKENS, kind(pa.list_(pa.float16(), 2))).slice(start, count)
    assert lists(Ragged.of_array(tokens, 2)) == TOKENS[start : start + count]


def test_values_that_are_slices_of_other_arrays() -> None:
    numbers = pa.array([None, *range(20)], pa.float16()).slice(2, 16)  # 1, 2, ...
    vectors = pa.FixedSizeListArray.from_arrays(numbers, 2).slice(1)  # [3, 4], [5, 6], ...
    tokens = pa.ListArray.from_arrays(pa.array([1, 2, 4], pa.int32()), vectors)
    assert lists(Ragged.of_array(tokens, 2)) == [[[5, 6]], [[7, 8], [9, 10]]]
    assert lists(Ragged.of_array(tokens.slice(1), 2)) == [[[7, 8], [9, 10]]]
    times = pa.ListArray.from_arrays(pa.array([1, 2, 4], pa.int32()), numbers)
    assert lists(Ragged.of_array(times, None)) == [[2], [3, 4]]
    partly_null = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array([None, 7], pa.int32()))
    assert lists(Ragged.of_array(partly_null.slice(1), None)) == [[7]]


def test_lists_of_a_fixed_size() -> None:
    vectors = [[1, 2], None, [3, 4], None]
    array = pa.array(vectors, pa.list_(pa.float32(), 2))
    assert lists(Ragged.of_array(array, None)) == vectors
    assert lists(Ragged.of_array(array.slice(1, 2), None)) == vectors[1:3]


def test_nulls_that_have_values_in_memory() -> None:
    """Arrow allows it."""
    bits = pa.py_buffer(np.packbits([True, False, True], bitorder="little"))
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32))
    array = pa.Array.from_buffers(
        pa.list_(pa.int32()), 3, [bits, offsets], children=[pa.array([1, 8, 9, 2], pa.int32())]
    )
    ragged = Ragged.of_array(array, None)
    assert (ragged.values.tolist(), ragged.lengths.tolist()) == ([1, 2], [1, 0, 1])


def test_nulls_within_a_row_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        Ragged.of_array(pa.array([[1, None]], pa.list_(pa.int32())), None)


def test_single_rows() -> None:
    rows = [None if ids is None else torch.tensor(ids, dtype=torch.int32) for ids in IDS]
    assert lists(Ragged.of_rows(rows, "int32", None)) == IDS
    assert Ragged.of_rows([None], "float16", 2).values.shape == (0, 2)


def test_cut() -> None:
    ragged = Ragged.of_array(pa.array(IDS, pa.list_(pa.int32())), None)
    assert lists(ragged.cut(2)) == [[1, 2], None, [], [3], [4, 5]]
    assert ragged.cut(3) is ragged


@pytest.mark.parametrize("fill", [0, -1])
@pytest.mark.parametrize("width", [(), (3,)])
@pytest.mark.parametrize("lengths", [[2, 0, 3], [3, 3], [0, 0], []])
def test_padded_equals_a_loop(fill: int, width: tuple[int, ...], lengths: list[int]) -> None:
    values = np.random.default_rng(0).integers(1, 99, (sum(lengths), *width)).astype(np.int32)
    expected = np.full((len(lengths), 3, *width), fill, np.int32)
    at = 0
    for i, length in enumerate(lengths):
        expected[i, :length] = values[at : at + length]
        at += length
    found = padded(values, mask(np.array(lengths, np.int64), 3), fill)
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)


def test_mask_and_memory() -> None:
    assert mask(np.array([1, 0, 2]), 2).tolist() == [[True, False], [False, False], [True, True]]
    assert mask(np.array([1, 0])).tolist() == [[True], [False]]
    assert mask(np.array([0])).shape == (1, 0)
    assert mask(np.array([255, 2]), 256).sum(axis=1).tolist() == [255, 2]
    assert mask(np.array([256, 2])).sum(axis=1).tolist() == [256, 2]
    for most in (255, 256, 65535, 65536):  # the integers that are compared become larger
        assert mask(np.array([most, most - 1, 0])).sum(axis=1).tolist() == [most, most - 1, 0]
    frozen = np.frombuffer(b"abcd", np.uint8)
    assert writable(frozen).flags.writeable
    assert writable(mine := np.zeros(2)) is mine
