"""Lists that are decoded without their levels equal those that pyarrow decodes; other columns are left to pyarrow."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet
from pipeline.parquet import regular_lists
from pipeline.parquet._flat_file import flat_file
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.parquet.pages import Page, chunk_place, pages
from pipeline.parquet.regular_lists import ListColumn, decode_regular_lists

ROWS = 90


def _numbers(kind: pa.DataType, count: int) -> pa.Array:
    """Returns random bits as numbers: also not-a-number, whose bits have to stay."""
    data = np.random.default_rng(count).bytes(count * kind.bit_width // 8)
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(data)])


def _lists(child: pa.Array, lengths: Any, large: bool = False) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kind = pa.LargeListArray if large else pa.ListArray
    return kind.from_arrays(pa.array(offsets.astype(np.int64 if large else np.int32)), child)


def _vectors(kind: pa.DataType, count: int, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(_numbers(kind, count * width), width)


LENGTHS = np.random.default_rng(1).integers(1, 9, ROWS)
REGULAR = {
    "embeddings": _lists(_numbers(pa.float32(), ROWS * 48), np.full(ROWS, 48)),
    "embeddings of float16": _lists(_numbers(pa.float16(), ROWS * 48), np.full(ROWS, 48)),
    "long embeddings": _lists(_numbers(pa.float64(), ROWS * 4096), np.full(ROWS, 4096)),
    "embeddings of fixed length": _vectors(pa.float32(), ROWS, 16),
    "large lists": _lists(_numbers(pa.int64(), ROWS * 24), np.full(ROWS, 24), large=True),
    "tokens": _lists(_vectors(pa.float16(), int(LENGTHS.sum()), 256), LENGTHS),
    "tokens of equal lengths": _lists(_vectors(pa.float32(), ROWS * 5, 32), np.full(ROWS, 5)),
    "large lists of tokens": _lists(_vectors(pa.uint32(), int(LENGTHS.sum()), 16), LENGTHS, large=True),
}
_VECTOR = _vectors(pa.float16(), ROWS * 5, 32)
_NULLS = np.arange(ROWS) == 50
OTHER = {
    "a null row": pa.ListArray.from_arrays(
        pa.array(np.arange(ROWS + 1, dtype=np.int32) * 32), _numbers(pa.float32(), ROWS * 32), mask=pa.array(_NULLS)
    ),
    "a null vector in place of a row": pa.FixedSizeListArray.from_arrays(
        _numbers(pa.float32(), ROWS * 32), 32, mask=pa.array(_NULLS)
    ),
    "an empty row": _lists(_vectors(pa.float16(), ROWS * 5 - 5, 32), np.where(_NULLS, 0, 5)),
    "a null vector": _lists(
        pa.FixedSizeListArray.from_arrays(
            _numbers(pa.float16(), ROWS * 160), 32, mask=pa.array(np.arange(ROWS * 5) == 250)
        ),
        np.full(ROWS, 5),
    ),
    "a null number": _lists(
        pa.array([None if i == 1700 else 1.5 for i in range(ROWS * 32)], pa.float32()), np.full(ROWS, 32)
    ),
    "rows of other lengths": _lists(
        _numbers(pa.float32(), ROWS * 32), 32 + 8 * ((np.arange(ROWS) == 60).astype(int) - _NULLS)
    ),
    "token ids": _lists(_numbers(pa.int32(), int(LENGTHS.sum())), LENGTHS),
    "short lists": _lists(_numbers(pa.float32(), ROWS * 8), np.full(ROWS, 8)),
    "lengths that are no multiple of eight": _lists(_numbers(pa.float32(), ROWS * 33), np.full(ROWS, 33)),
    "bytes": _lists(_numbers(pa.int8(), ROWS * 32), np.full(ROWS, 32)),
    "texts": pa.array([["a"] * 16] * ROWS),
    "numbers": _numbers(pa.float32(), ROWS),
    "vectors of vectors": pa.FixedSizeListArray.from_arrays(_VECTOR, 5),
    "lists of lists": _lists(_lists(_numbers(pa.float32(), ROWS * 32), np.full(ROWS * 2, 16)), np.full(ROWS, 2)),
}


def _write(array: pa.Array, path: Path, **options: Any) -> pq.FileMetaData:
    options = {"compression": "zstd", "use_dictionary": False, "write_page_index": True, **options}
    pq.write_table(pa.table({"a": array}), path, row_group_size=40, **options)
    return pq.read_metadata(path)


def _decoded(path: Path, group: int, rows: int | None = None, data: bytes | None = None) -> pa.Array | None:
    file, data = pq.ParquetFile(path), data or path.read_bytes()
    chunk = file.metadata.row_group(group).column(0)
    column = ListColumn.of(file.schema_arrow.field("a").type, file.metadata.schema.column(0))
    if column is None:
        return None
    start, size = chunk_place(chunk, len(data))
    piece = memoryview(data)[start : start + size]
    return decode_regular_lists(piece, chunk, column, file.metadata.row_group(group).num_rows if rows is None else rows)


def _bits(array: pa.Array) -> tuple[Any, ...]:
    """Returns what an array holds, numbers by their bits."""
    if hasattr(array, "values"):
        lengths = array.value_lengths().to_pylist()
        return array.type, array.null_count, lengths, *_bits(array.flatten())
    return array.type, array.null_count, array.view(f"uint{array.type.bit_width}").to_pylist()


@pytest.mark.parametrize("name", REGULAR)
@pytest.mark.parametrize("is_split", [False, True])
def test_the_rows_are_those_of_pyarrow(tmp_path: Path, name: str, is_split: bool) -> None:
    _write(REGULAR[name], tmp_path / "a.parquet", use_byte_stream_split=is_split, data_page_size=2000)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    for group, rows in enumerate((40, 40, 10)):
        found = _decoded(tmp_path / "a.parquet", group)
        assert found is not None
        found.validate(full=True)
        assert len(found) == rows
        assert _bits(found) == _bits(file.read_row_group(group).column(0).chunk(0))


def test_pages_that_are_decoded_in_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_lists, "_SPLIT_BYTES", 0)
    parts = []

    def counted(*args: Any) -> pa.Buffer:
        parts.append(args)
        return flat_file(*args)

    monkeypatch.setattr(regular_lists, "flat_file", counted)
    _write(REGULAR["embeddings"], tmp_path / "a.parquet", use_byte_stream_split=True, data_page_size=500)
    found = _decoded(tmp_path / "a.parquet", 0)
    assert found is not None
    assert len(parts) > 1
    assert _bits(found) == _bits(REGULAR["embeddings"].slice(0, 40))


@pytest.mark.parametrize("codec", ["none", "zstd", "snappy", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize("name", ["embeddings", "tokens"])
def test_codecs_that_say_when_a_page_is_too_short(tmp_path: Path, name: str, codec: str) -> None:
    _write(REGULAR[name], tmp_path / "a.parquet", compression=codec)
    found = _decoded(tmp_path / "a.parquet", 0)
    assert (found is not None) == (codec in ("none", "zstd"))
    if found is not None:
        assert _bits(found) == _bits(REGULAR[name].slice(0, 40))


@pytest.mark.parametrize("more", [0, 1, 40])
def test_a_page_that_is_shorter_than_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    """Otherwise its last values would be what was in memory before."""
    _write(REGULAR["embeddings"], tmp_path / "a.parquet")

    def claimed(data: memoryview, values: int) -> list[Page]:
        return [replace(page, uncompressed=page.uncompressed + more) for page in pages(data, values)]

    monkeypatch.setattr(regular_lists, "pages", claimed)
    assert (_decoded(tmp_path / "a.parquet", 0) is None) == bool(more)


@pytest.mark.parametrize("name", ["embeddings", "tokens", "long embeddings"])
def test_small_pages_of_a_file_without_a_page_index(tmp_path: Path, name: str) -> None:
    """With an index, Arrow ends pages between rows."""
    options = {"write_page_index": False, "data_page_size": 500, "write_batch_size": 100}
    _write(REGULAR[name], tmp_path / "a.parquet", **options)
    found = _decoded(tmp_path / "a.parquet", 0)
    assert found is not None
    assert _bits(found) == _bits(REGULAR[name].slice(0, 40))


def test_thousands_of_pages(tmp_path: Path) -> None:
    array = _vectors(pa.float32(), 20_000, 16)
    options = {
        "compression": "zstd",
        "data_page_size": 1,
        "write_batch_size": 16,
        "use_dictionary": False,
        "write_page_index": True,
    }
    for is_split in (False, True):
        pq.write_table(pa.table({"a": array}), tmp_path / "a.parquet", use_byte_stream_split=is_split, **options)
        found = _decoded(tmp_path / "a.parquet", 0)
        assert found is not None
        assert _bits(found) == _bits(array)


def test_lists_that_cannot_be_null(tmp_path: Path) -> None:
    vector = pa.list_(pa.field("element", pa.float16(), nullable=False), 256)
    kind = pa.list_(pa.field("element", vector, nullable=False))
    table = pa.table([REGULAR["tokens"].cast(kind)], schema=pa.schema([pa.field("a", kind, nullable=False)]))
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, row_group_size=40, compression="zstd")
    found = _decoded(tmp_path / "a.parquet", 0)
    assert found is not None
    assert found.type == kind
    assert _bits(found) == _bits(table["a"].chunk(0).slice(0, 40))


@pytest.mark.parametrize("name", OTHER)
def test_other_columns_are_left_to_pyarrow(tmp_path: Path, name: str) -> None:
    _write(OTHER[name], tmp_path / "a.parquet")
    assert _decoded(tmp_path / "a.parquet", 1) is None


@pytest.mark.parametrize("options", [{"use_dictionary": True}, {"data_page_version": "2.0"}])
def test_other_pages_are_left_to_pyarrow(tmp_path: Path, options: dict[str, Any]) -> None:
    _write(REGULAR["embeddings"], tmp_path / "a.parquet", **options)
    assert _decoded(tmp_path / "a.parquet", 0) is None


def test_integers_of_differences_are_left_to_pyarrow(tmp_path: Path) -> None:
    options = {"column_encoding": {"a.list.element": "DELTA_BINARY_PACKED"}}
    _write(REGULAR["large lists"], tmp_path / "a.parquet", **options)
    assert _decoded(tmp_path / "a.parquet", 0) is None


@pytest.mark.parametrize("rows", [39, 41])
@pytest.mark.parametrize("name", ["embeddings", "tokens", "embeddings of fixed length"])
def test_another_number_of_rows(tmp_path: Path, name: str, rows: int) -> None:
    _write(REGULAR[name], tmp_path / "a.parquet")
    assert _decoded(tmp_path / "a.parquet", 0, rows) is None


@pytest.mark.parametrize(
    ("name", "codec", "is_split"),
    [
        ("embeddings", "none", False),
        ("tokens", "none", False),
        ("embeddings of fixed length", "none", False),
        ("embeddings", "none", True),
        ("embeddings", "zstd", True),
        ("tokens", "zstd", False),
    ],
)
def test_changed_bytes_never_give_other_rows(tmp_path: Path, name: str, codec: str, is_split: bool) -> None:
    """The first bytes of the pages in turn, then bytes at random: what is decoded is what pyarrow decodes."""
    path, changed = tmp_path / "a.parquet", tmp_path / "b.parquet"
    options = {"compression": codec, "use_byte_stream_split": is_split, "data_page_size": 700}
    metadata = _write(REGULAR[name].slice(0, 12), path, write_statistics=False, **options)
    data, rng, decoded = path.read_bytes(), np.random.default_rng(0), 0
    start, size = chunk_place(metadata.row_group(0).column(0), len(data))
    for place in [*range(start, start + 120), *(start + rng.integers(0, size, 250)).tolist()]:
        mutated = bytearray(data)
        mutated[place] ^= 1 << int(rng.integers(8))
        changed.write_bytes(mutated)
        found = _decoded(path, 0, data=bytes(mutated))
        if found is not None:
            decoded += 1
            assert _bits(found) == _bits(pq.ParquetFile(changed).read_row_group(0).column(0).chunk(0))
    assert decoded > (50 if codec == "none" else 0)


def test_no_rows(tmp_path: Path) -> None:
    _write(REGULAR["tokens"], tmp_path / "a.parquet")
    assert _decoded(tmp_path / "a.parquet", 0, rows=0) is None


def test_no_columns(tmp_path: Path) -> None:
    _write(REGULAR["tokens"], tmp_path / "a.parquet")
    with parquet.open_parquet(BoundedFile(io.FileIO(tmp_path / "a.parquet"))) as file:
        assert file.read_group(0, []).num_rows == file.read_row_groups([0], columns=[]).num_rows == 40


def test_columns_that_are_never_regular_are_left_alone_after_a_while(tmp_path: Path) -> None:
    table = pa.table({"regular": REGULAR["embeddings"], "not": OTHER["token ids"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, use_dictionary=False, compression="zstd")
    tries: dict[str, int] = {}
    for _ in range(2):
        with parquet.open_parquet(BoundedFile(io.FileIO(tmp_path / "a.parquet"))) as file:
            for group in range(9):
                found = file.read_group(group, ["regular", "not"], tries)
                assert found["not"].to_pylist() == table["not"].slice(group * 10, 10).to_pylist()
    assert tries == {"regular": 18, "not": -3}


def test_columns_of_both_kinds_keep_their_order(tmp_path: Path) -> None:
    table = pa.table(
        {
            "texts": [f"{i}" for i in range(ROWS)],
            "tokens": REGULAR["tokens"],
            "nulls": OTHER["a null row"],
            "embeddings": REGULAR["embeddings"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=40, use_dictionary=["texts"])
    with parquet.open_parquet(BoundedFile(io.FileIO(tmp_path / "a.parquet"))) as file:
        for columns in (["embeddings", "texts", "tokens", "nulls"], ["tokens"], ["texts"], ["nulls", "embeddings"]):
            for group in (1, 0, 2):
                found = file.read_group(group, columns)
                assert found.schema == table.select(columns).schema
                wanted = table.select(columns).slice(group * 40, 40).combine_chunks()
                for name in columns:
                    left, right = (one[name].combine_chunks() for one in (found, wanted))
                    assert left.to_pylist() == right.to_pylist() if name == "texts" else _bits(left) == _bits(right)
