"""The computed memory of null vectors is the memory that Arrow uses."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet.levels import Padded, leaves, padding
from pipeline.parquet.pages import DICTIONARY, chunk_place, pages

VECTOR = pa.list_(pa.float16(), 3)


def _schema(*fields: pa.Field) -> pq.ParquetSchema:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.schema(fields).empty_table(), sink)
    return pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata.schema


def test_the_levels_at_which_vectors_are_null() -> None:
    none: list[Padded] = []

    def padded(schema: pq.ParquetSchema) -> list[list[Padded]]:
        return [[*leaf.padded] for leaf in leaves(schema)]

    assert padded(_schema(pa.field("a", VECTOR))) == [[Padded(0, 0, 6)]]
    assert padded(_schema(pa.field("a", VECTOR, nullable=False))) == [none]
    assert padded(_schema(pa.field("a", pa.list_(VECTOR)))) == [[Padded(2, 2, 6)]]  # 0 null, 1 empty
    assert padded(_schema(pa.field("a", pa.list_(pa.float32())), pa.field("b", pa.string()))) == [none, none]
    struct = pa.struct([pa.field("v", VECTOR), pa.field("s", pa.string())])
    assert padded(_schema(pa.field("a", struct))) == [[Padded(0, 1, 6)], none]
    assert padded(_schema(pa.field("a", pa.map_(pa.string(), VECTOR)))) == [none, [Padded(2, 2, 6)]]
    assert padded(_schema(pa.field("a", pa.list_(VECTOR, 2)))) == [[Padded(0, 0, 12), Padded(2, 2, 6)]]


@pytest.mark.parametrize("codec", ["none", "zstd", "snappy", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_nulls_are_counted(tmp_path: Path, codec: str, version: str) -> None:
    rows = [[None] * 30, [[1.0, 2.0, 3.0]] * 20, None, [], [None, [1.0, None, 3.0]] * 25, [[0.0] * 3, None] * 2] * 9
    table = pa.table({"a": pa.array(rows, pa.list_(VECTOR)), "b": pa.array([None, [1, 2, 3]] * 27, VECTOR)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression=codec, data_page_version=version, write_batch_size=16, data_page_size=40)
    metadata, data = pq.ParquetFile(path).metadata, path.read_bytes()
    for number, nulls in enumerate((9 * (30 + 25 + 2), 27)):
        column, leaf = metadata.row_group(0).column(number), metadata.schema.column(number)
        start, size = chunk_place(column, len(data))
        piece = data[start : start + size]
        found = [page for page in pages(piece, column.num_values) if page.kind != DICTIONARY]
        assert len(found) > 2
        counted = sum(
            padding(page, piece, column.compression, leaf, leaves(metadata.schema)[number].padded) for page in found
        )
        assert counted == nulls * 6


def test_the_widths_of_values() -> None:
    kinds = [pa.bool_(), pa.int8(), pa.float16(), pa.decimal128(2, 0), pa.string(), pa.list_(pa.float64())]
    schema = _schema(*(pa.field(f"c{i}", kind) for i, kind in enumerate(kinds)))
    assert [leaf.width for leaf in leaves(schema)] == [1, 1, 2, 16, 16, 8]
