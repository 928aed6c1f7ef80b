"""Columns of the schema are converted by what they store. See also ``test_padded``."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate.column import Column, columns_of


@pytest.mark.parametrize(
    ("kind", "part", "expected"),
    [
        (pa.list_(pa.float32()), "embedding", ("vector", "float32", 7)),
        (pa.list_(pa.float16(), 7), "embedding", ("vector", "float16", 7)),
        (pa.list_(pa.int32()), "grid", ("vector", "int32", 3)),
        (pa.list_(pa.list_(pa.float16(), 4)), "tokens", ("matrix", "float16", 4)),
        (pa.list_(pa.int32()), "token_ids", ("sequence", "int32", 7)),
        (pa.list_(pa.float64()), "times", ("sequence", "float64", 7)),
        (pa.int64(), None, ("scalar", "int64", None)),
        (pa.bool_(), None, ("scalar", "bool", None)),
        (pa.string(), None, ("object", "object", None)),
        (pa.list_(pa.int32()), None, ("object", "object", None)),
    ],
)
def test_kinds(kind: pa.DataType, part: str | None, expected: tuple[str, str, int | None]) -> None:
    column = Column.of(pa.field("c", kind), part, 7)
    assert (column.kind, column.dtype, column.width) == expected


def test_vectors_of_another_length_than_the_footer_says() -> None:
    column = Column("vector", "float32", 3, True)
    array = pa.array([[1, 2, 3], None, [1, 2]], pa.list_(pa.float32()))
    with pytest.raises(ConfigError, match="column 'f' holds 2 values where 3 belong"):
        column.tensors("f", array)


def test_columns_of_every_kind_of_batch() -> None:
    columns = {"a": Column("scalar", "int64", None, True)}
    table = pa.table({"a": pa.chunked_array([[1], [None, 3]])})
    for batch in (table, table.combine_chunks().to_batches()[0]):
        ((name, array),) = columns_of(columns, batch)
        assert (name, array.to_pylist()) == ("a", [1, None, 3])
    assert columns_of(columns, [{"a": 1}, {"a": None}]) == [("a", [1, None])]
    assert columns_of(columns, []) == []


def test_a_batch_that_is_mostly_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row may have thousands of tokens, although the file is small."""
    monkeypatch.setattr("pipeline.dataset.collate.column.MAX_PADDED_BYTES", 1 << 16)
    column = Column("matrix", "float16", 8, True)
    one, long = torch.zeros(1, 8, dtype=torch.float16), torch.zeros(100, 8, dtype=torch.float16)
    with pytest.raises(ConfigError, match=r"batch_size: 64 rows of 'f' take 102400 bytes, .* and hold 2608; smaller"):
        column.tensors("f", [long, *[one] * 63])
    assert column.tensors("f", [long, *[one] * 30])["f"].shape == (31, 100, 8)  # below MAX_PADDED_BYTES
    assert column.tensors("f", [long] * 90)["f"].shape == (90, 100, 8)  # large, but without padding
