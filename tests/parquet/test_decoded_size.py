"""The size of a column chunk in memory is known before it is decoded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet.decoded_size import decoded_size, string_bytes
from pipeline.parquet.levels import leaves
from pipeline.parquet.pages import chunk_place

TEXTS = ["", "four", "x" * 300] * 100


def _chunk(path: Path, values: pa.Array) -> tuple[pq.FileMetaData, memoryview]:
    pq.write_table(pa.table({"a": values}), path)
    metadata = pq.ParquetFile(path).metadata
    start, size = chunk_place(metadata.row_group(0).column(0), path.stat().st_size)
    return metadata, memoryview(path.read_bytes())[start : start + size]


def test_strings_count_at_each_occurrence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    metadata, data = _chunk(path, pa.array(TEXTS))
    total = string_bytes(metadata, 0, 0, data, path.stat().st_size, most=1 << 30)
    assert sum(map(len, TEXTS)) <= total < 2 * sum(map(len, TEXTS))
    assert string_bytes(metadata, 0, 0, data, path.stat().st_size, most=10) > 10


@pytest.mark.parametrize(
    "values", [pa.array(range(1000)), pa.array(TEXTS), pa.array([[1.0, 2.0]] * 50)], ids=["numbers", "texts", "lists"]
)
def test_the_bound_is_over_the_size_in_memory(tmp_path: Path, values: pa.Array) -> None:
    metadata, data = _chunk(tmp_path / "a.parquet", values)
    column, leaf = metadata.row_group(0).column(0), metadata.schema.column(0)
    size, _ = decoded_size(data, column, leaf, leaves(metadata.schema)[0], left=1 << 30)
    assert size >= values.nbytes
