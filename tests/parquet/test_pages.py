"""Page headers are parsed as pyarrow wrote them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet.pages import DATA, DATA_V2, DICTIONARY, chunk_place, pages, shared_bytes

TEXTS = ["", "four", "x" * 300] * 100


def _column(path: Path, **options: Any) -> tuple[bytes, pq.ColumnChunkMetaData]:
    pq.write_table(pa.table({"a": TEXTS}), path, write_batch_size=10, data_page_size=1, **options)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start, size = chunk_place(column, path.stat().st_size)
    return path.read_bytes()[start : start + size], column


@pytest.mark.parametrize("codec", ["none", "zstd", "snappy", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize(("version", "kind"), [("1.0", DATA), ("2.0", DATA_V2)])
def test_pages_of_a_dictionary(tmp_path: Path, codec: str, version: str, kind: int) -> None:
    data, column = _column(tmp_path / "a.parquet", compression=codec, data_page_version=version)
    found = pages(data, column.num_values)
    assert [found[0].kind, found[0].values, found[0].uncompressed] == [DICTIONARY, 3, 3 * 4 + 304]
    assert {page.kind for page in found[1:]} == {kind}
    assert sum(page.values for page in found[1:]) == len(TEXTS)
    assert found[-1].start + found[-1].size == len(data)
    assert shared_bytes(found[0], data, column, small=0) == 300
    assert shared_bytes(found[0], data, column, small=1000) == 316  # not decoded
    assert {shared_bytes(page, data, column, small=0) for page in found[1:]} == {0}


def test_prefixes_are_shared(tmp_path: Path) -> None:
    data, column = _column(tmp_path / "a.parquet", use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    first = pages(data, column.num_values)[0]
    assert shared_bytes(first, data, column, small=0) == first.uncompressed > 0


def test_headers_that_are_none() -> None:
    chance = random.Random(3)
    for _ in range(3000):
        data = chance.randbytes(chance.randrange(60))
        with contextlib.suppress(ValueError):
            assert all(0 <= page.start <= page.start + page.size <= len(data) for page in pages(data, 10))


def test_a_column_that_is_not_in_the_file(tmp_path: Path) -> None:
    _, column = _column(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'a' claims bytes 4 to"):
        chunk_place(column, 50)
