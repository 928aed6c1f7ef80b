"""Estimates from a footer against the buffers that pyarrow allocates for the same row group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.loading.memory.decoded_bytes import DecodedBytes, group_bytes, row_bytes

ROWS = 2000
RNG = np.random.default_rng(0)


def vectors(length: int, every: int) -> pa.Array:
    """Returns lists of a fixed size, of which only one in ``every`` is not null."""
    values = pa.array(RNG.standard_normal(ROWS * length).astype(np.float32))
    mask = pa.array(np.arange(ROWS) % every != 0) if every > 1 else None
    return pa.FixedSizeListArray.from_arrays(values, length, mask=mask)


def ragged(kind: pa.DataType, most: int) -> pa.Array:
    """Returns lists, of which a third are null or empty."""
    lengths = RNG.integers(0, most, ROWS) * (RNG.random(ROWS) > 0.3)
    values = RNG.integers(0, 1000, int(lengths.sum())).tolist()
    ends = np.cumsum(lengths).tolist()
    rows: list[Any] = [values[end - size : end] for end, size in zip(ends, lengths.tolist(), strict=True)]
    return pa.array([None if i % 7 == 0 else row for i, row in enumerate(rows)], pa.list_(kind))


COLUMNS = {
    "numbers": pa.array(np.arange(ROWS)),
    "numbers with nulls": pa.array([None if i % 2 else i for i in range(ROWS)], pa.int16()),
    "truth": pa.array([i % 3 == 0 for i in range(ROWS)]),
    "lists": ragged(pa.int32(), 50),
    "long lists": ragged(pa.int64(), 500),
    "large lists": ragged(pa.int32(), 50).cast(pa.large_list(pa.int32())),
    "vectors": vectors(64, 1),
    "few vectors": vectors(64, 50),
    "lists of vectors": pa.array(
        [None if i % 3 == 0 else RNG.random((i % 9, 16)).tolist() for i in range(ROWS)],
        pa.list_(pa.list_(pa.float32(), 16)),
    ),
    "structs": pa.array([{"a": i, "b": [i] * (i % 4)} for i in range(ROWS)]),
    "different texts": pa.array([f"text {i}" * 10 for i in range(ROWS)]),
}


def written(path: Path, array: pa.Array) -> pq.ParquetFile:
    pq.write_table(pa.table({"a": array}), path, use_dictionary=pa.types.is_string(array.type), compression="zstd")
    return pq.ParquetFile(path)


def estimate(file: pq.ParquetFile, wanted: pa.Schema | None = None) -> int:
    sizes = DecodedBytes(file.metadata.schema, file.schema_arrow, wanted or file.schema_arrow)
    return sizes.of(file.metadata.row_group(0))


@pytest.mark.parametrize("name", COLUMNS)
def test_at_least_what_pyarrow_allocates_and_little_more(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "a.parquet", COLUMNS[name])
    true = file.read_row_group(0).get_total_buffer_size()
    assert true <= estimate(file)
    kept_for_gathering = ROWS * 9 if name != "numbers" else 0
    assert estimate(file) <= 1.25 * true + kept_for_gathering + 1000


def test_the_footer_alone_is_too_small_for_null_vectors(tmp_path: Path) -> None:
    """What made the estimate necessary: 50 times less in the file than in memory."""
    file = written(tmp_path / "a.parquet", COLUMNS["few vectors"])
    true = file.read_row_group(0).get_total_buffer_size()
    assert file.metadata.row_group(0).column(0).total_uncompressed_size < true / 10
    assert true >= ROWS * 64 * 4


def test_strings_of_a_dictionary_are_underestimated(tmp_path: Path) -> None:
    """Readers correct it when such a group is decoded."""
    file = written(tmp_path / "a.parquet", pa.array(["x" * 1000] * ROWS))
    assert estimate(file) < file.read_row_group(0).get_total_buffer_size() / 10


def test_a_cast_holds_both_types(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", pa.array(np.arange(ROWS, dtype=np.int32)))
    found = estimate(file, pa.schema([("a", pa.int64())]))
    assert ROWS * 12 <= found <= ROWS * 15 + 1000


def test_a_schema_of_other_columns(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", COLUMNS["structs"])
    other = pa.schema([("a", pa.int64())])
    with pytest.raises(ValueError, match="does not fit"):
        DecodedBytes(file.metadata.schema, other, other)


def test_bytes_of_a_group() -> None:
    """All rows; half of them, which stay with the others; a tenth, which are copied; and rows with labels."""
    decoded, stored = np.array([1000] * 3), np.array([100] * 3)
    kept, while_decoded = group_bytes(decoded, stored, np.array([100, 50, 10]))
    assert kept.tolist() == [1000 + 800, 1000 + 50 * 16, 100 + 10 * 16]
    assert while_decoded.tolist() == [1000 + 800, 1000 + 50 * 16, 1000 + 100 + 10 * 16]
    kept, while_decoded = group_bytes(decoded, stored, np.array([100, 50, 10]), 7.0)
    assert kept.tolist() == [1000 + 700 + 800, 500 + 350 + 50 * 16, 100 + 70 + 10 * 16]
    assert while_decoded.tolist() == [one + 1000 for one in kept.tolist()]


def test_bytes_of_a_row_of_labels() -> None:
    table = pa.table({"class": pa.array(range(10), pa.int32()), "several": [[1, 2]] * 10})
    assert row_bytes(table) == pytest.approx(4 + 1 + 2 * 8 + 4.4 + 1 + 8, abs=0.5)
    assert row_bytes(table.slice(0, 0)) >= 0
