"""Gathering rows equals Arrow's take, for every type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import gather as gathering
from pipeline.dataset.loading.gather import StoredColumn, gather

RNG = np.random.default_rng(0)


def _lists(kind: pa.DataType, lengths: list[int | None], make: Any) -> pa.Array:
    return pa.array([None if length is None else [make() for _ in range(length)] for length in lengths], kind)


def _vector(width: int) -> Any:
    return lambda: RNG.standard_normal(width).astype(np.float16).tolist()


def _number() -> int:
    return int(RNG.integers(0, 100))


RAGGED: list[int | None] = [3, 0, None, 1, 7, 7, None, 2]
EQUAL: list[int | None] = [5] * 8
COLUMNS = {
    "numbers": pa.array([1, None, 3, 4, 5, 6, None, 8], pa.int32()),
    "times": pa.array(range(8), pa.timestamp("us")),
    "booleans": pa.array([True, None, False, True, True, False, False, None]),
    "texts": pa.array(["a", "", None, "ccc", "d", "e", "f", "g"]),
    "decimals": pa.array([None, *range(7)], pa.decimal128(9, 2)),
    "dictionary": pa.array(["a", "b", None, "a", "a", "b", "b", "a"]).dictionary_encode(),
    "structs": pa.array([{"x": i, "y": [i]} for i in range(8)]),
    "embeddings": _lists(pa.list_(pa.float32()), EQUAL, RNG.random),
    "embeddings and nulls": _lists(pa.list_(pa.float32()), [5, None, 5, 5, None, 5, 5, 5], RNG.random),
    "ids": _lists(pa.list_(pa.int32()), RAGGED, _number),
    "only empty": _lists(pa.list_(pa.int32()), [0] * 8, _number),
    "only nulls": _lists(pa.list_(pa.int32()), [None] * 8, _number),
    "large lists": _lists(pa.large_list(pa.int64()), RAGGED, _number),
    "tokens": _lists(pa.list_(pa.list_(pa.float16(), 3)), RAGGED, _vector(3)),
    "equal tokens": _lists(pa.list_(pa.list_(pa.float16(), 3)), EQUAL, _vector(3)),
    "vectors": pa.array([_vector(4)() for _ in range(8)], pa.list_(pa.float16(), 4)),
    "vectors and nulls": pa.array([None if i % 3 else _vector(4)() for i in range(8)], pa.list_(pa.float16(), 4)),
    "nulls within": pa.array([[1, None], [None], None, [], [4], [5], [6], [7, 8]], pa.list_(pa.int32())),
    "nulls within tokens": pa.array([[[1.0, None]], None] * 4, pa.list_(pa.list_(pa.float32(), 2))),
    "null tokens": pa.array([[[1.0, 2.0], None], None] * 4, pa.list_(pa.list_(pa.float32(), 2))),
    "lists of lists": pa.array([[[1], [2, 3]], None, [], [[]], [[4]], [[5]], [[6]], [[7]]]),
    "lists of text": pa.array([["a", "bb"], None, [], [""], ["c"], ["d"], ["e"], ["f"]]),
    "lists of booleans": pa.array([[True], None, [], [False, True], [True], [], [False], [None]]),
    "without values": pa.array([[]] * 8, pa.list_(pa.list_(pa.float32(), 0))),
}
PARTS = [
    [([3, 3, 0, 7],)],
    [([],)],
    [([7, 6, 5, 4, 3, 2, 1, 0],), ([],), ([2, 1],)],
]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("parts", range(len(PARTS)))
@pytest.mark.parametrize("cut", [(0, 8), (1, 6), (2, 3)])
def test_it_equals_take(name: str, parts: int, cut: tuple[int, int]) -> None:
    array = COLUMNS[name].slice(*cut)
    taken = [(array, np.array([row for row in rows if row < len(array)], np.int64)) for (rows,) in PARTS[parts]]
    found = gather(array.type, [(StoredColumn.of(one), rows) for one, rows in taken])
    found.validate(full=True)
    assert found.type == array.type
    assert found.to_pylist() == [one for part, rows in taken for one in part.take(pa.array(rows)).to_pylist()]


def test_columns_of_different_lengths_are_joined() -> None:
    parts = [COLUMNS[name] for name in ("embeddings", "embeddings and nulls")]
    parts.append(_lists(pa.list_(pa.float32()), RAGGED, RNG.random))
    rows = np.array([7, 2, 1])
    found = gather(pa.list_(pa.float32()), [(StoredColumn.of(one), rows) for one in parts])
    found.validate(full=True)
    assert found.to_pylist() == [one.to_pylist()[row] for one in parts for row in rows]


def test_the_memory_of_numbers_may_be_written() -> None:
    """torch has no tensors that may not be."""
    found = gather(pa.list_(pa.float32()), [(StoredColumn.of(COLUMNS["embeddings"]), np.array([1, 2]))])
    assert found.values.buffers()[1].is_mutable


def test_rows_of_numbers_are_not_taken_one_by_one() -> None:
    plain = {name for name, array in COLUMNS.items() if StoredColumn.of(array).units is not None}
    assert plain >= {"numbers", "embeddings", "embeddings and nulls", "ids", "tokens", "vectors", "large lists"}
    assert not plain & {"booleans", "texts", "structs", "dictionary", "nulls within", "null tokens", "without values"}


def test_too_many_values_for_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_MAX_UNITS", 39)
    column = StoredColumn.of(COLUMNS["embeddings"])
    gather(pa.list_(pa.float32()), [(column, np.arange(7))])
    with pytest.raises(ConfigError, match="8 rows have 40 values in one column; a smaller batch"):
        gather(pa.list_(pa.float32()), [(column, np.arange(8))])
