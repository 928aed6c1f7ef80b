"""A file that is made of decoded pages is one that pyarrow reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet._flat_file import FlatPage, flat_file, varint

_PLAIN, _BYTE_STREAM_SPLIT = 0, 9


def _page(values: np.ndarray, encoding: int) -> FlatPage:
    content = values.tobytes()
    if encoding == _BYTE_STREAM_SPLIT:
        content = np.frombuffer(content, np.uint8).reshape(len(values), -1).T.tobytes()
    return FlatPage(memoryview(content), len(values), encoding)


@pytest.mark.parametrize("encoding", [_PLAIN, _BYTE_STREAM_SPLIT])
@pytest.mark.parametrize(
    ("dtype", "physical_type", "length", "kind"),
    [
        (np.int32, "INT32", 0, pa.int32()),
        (np.int64, "INT64", 0, pa.int64()),
        (np.float32, "FLOAT", 0, pa.float32()),
        (np.float64, "DOUBLE", 0, pa.float64()),
        (np.float16, "FIXED_LEN_BYTE_ARRAY", 2, pa.binary(2)),
    ],
)
def test_pyarrow_reads_the_values(
    encoding: int, dtype: type, physical_type: str, length: int, kind: pa.DataType
) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, 70_000).astype(dtype)
    pages = [_page(part, encoding) for part in np.split(values, [1, 300, 69_000])]
    file = pq.ParquetFile(pa.BufferReader(flat_file(pages, physical_type, length)))
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (70_000, 1)
    found = file.read().column(0).combine_chunks()
    assert found.type == kind
    assert found.null_count == 0
    assert found.buffers()[1].to_pybytes()[: values.nbytes] == values.tobytes()


def test_pages_of_two_encodings() -> None:
    values = np.arange(100, dtype=np.float32)
    pages = [_page(values[:40], _PLAIN), _page(values[40:], _BYTE_STREAM_SPLIT)]
    file = pq.ParquetFile(pa.BufferReader(flat_file(pages, "FLOAT", 0)))
    assert file.read().column(0).to_pylist() == values.tolist()


@pytest.mark.parametrize(("value", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_variable_length_integers(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded
