"""Shards are read as by pyarrow; row groups that take too much memory for their file are refused before decoding."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import parquet
from pipeline.core.errors import ConfigError
from pipeline.parquet import bounded_file
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.parquet.file import read_footer
from tests.support import bounded, thrift

ROWS = 700


def _some(values: list[Any], kind: pa.DataType, seed: int) -> pa.Array:
    """Random ``values``, a fifth of them null."""
    chosen = np.random.default_rng(seed).integers(0, len(values) + len(values) // 4 + 1, ROWS)
    return pa.array([values[i] if i < len(values) else None for i in chosen], kind)


VECTOR = pa.list_(pa.float16(), 3)
SPACES = pa.list_(pa.list_(pa.float32(), 2), 2)
PAIR = pa.struct({"v": VECTOR, "s": pa.string()})
TABLE = pa.table(
    {
        "id": [f"row {i}" for i in range(ROWS)],
        "text": _some(["", "a", "some words", "long " * 200], pa.string(), 1),
        "large": _some(["x", "y" * 50], pa.large_string(), 2),
        "bytes": _some([b"", b"\xff" * 9], pa.binary(), 3),
        "number": _some([0, 1, 2**40], pa.int64(), 4),
        "flag": _some([True, False], pa.bool_(), 5),
        "half": _some([0.5, 1.0], pa.float16(), 6),
        "decimal": _some([1, 2], pa.decimal128(20, 2), 7),
        "embedding": _some([[0.5] * 8, [], [1.0, None]], pa.list_(pa.float32()), 8),
        "tokens": _some([[[1.0, 2.0, 3.0]] * 5, [], [None, [1.0, None, 2.0]]], pa.list_(VECTOR), 9),
        "vector": _some([[1.0, 2.0, 3.0]], VECTOR, 10),
        "spaces": _some([[[1.0, 2.0], None], [[0.0, 0.0], [1.0, None]]], SPACES, 11),
        "struct": _some([{"v": [1.0, 2.0, 3.0], "s": "a"}, {"v": None, "s": None}], PAIR, 12),
        "list of structs": _some([[{"v": None}, None, {"v": [1.0, 2.0, 3.0]}], []], pa.list_(PAIR), 13),
        "words": _some([["a", None, "b" * 40], []], pa.list_(pa.string()), 14),
        "map": _some([[("k", [1.0, 2.0, 3.0]), ("l", None)], []], pa.map_(pa.string(), VECTOR), 15),
        "large list": _some([[1, 2], [None]], pa.large_list(pa.int32()), 16),
        "null": pa.nulls(ROWS),
    }
)  # fmt: skip


@pytest.mark.parametrize("codec", ["none", "zstd", "snappy", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_what_is_read_is_what_pyarrow_reads(tmp_path: Path, codec: str, version: str, dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        TABLE,
        path,
        compression=codec,
        data_page_version=version,
        use_dictionary=dictionary,
        row_group_size=300,
        data_page_size=500,
        write_batch_size=50,
    )
    wanted = pq.read_table(path)
    file = BoundedFile(io.FileIO(path))
    assert parquet.open_parquet(file).read(use_threads=False).equals(wanted)
    for group in range(3):
        part = wanted.slice(group * 300, 300)
        assert part.nbytes <= file._decoded[group] < 30 * part.nbytes
    some = ["tokens", "id"]
    file = BoundedFile(io.FileIO(path))
    batches = list(parquet.open_parquet(file).iter_batches(64, row_groups=[1, 2], columns=some, use_threads=False))
    assert pa.Table.from_batches(batches).select(some).equals(wanted.slice(300).select(some))
    file = BoundedFile(io.FileIO(path))
    read_footer(file)
    fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
    assert fragment.scanner(columns=some).to_table().equals(wanted.select(some))


def test_a_file_that_has_no_descriptor_is_read_too(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")

    class Remote:
        def __init__(self, data: bytes) -> None:
            self.file = io.BytesIO(data)

        def seek(self, *place: int) -> int:
            return self.file.seek(*place)

        def read(self, size: int) -> bytes:
            return self.file.read(size)

    file = BoundedFile(Remote((tmp_path / "a.parquet").read_bytes()))
    assert parquet.open_parquet(file).read().equals(TABLE)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    return parquet.open_parquet(BoundedFile(io.FileIO(path))).read(columns)


LONG = "x" * (1 << 20)
INDICES = pa.array(np.zeros(100_000, np.int32))
BOMBS: dict[str, Any] = {
    "a long value of a dictionary": pa.DictionaryArray.from_arrays(INDICES, pa.array([LONG])),
    "the same in lists": pa.ListArray.from_arrays(
        pa.array(np.arange(0, 100_001, 100, np.int32)), pa.DictionaryArray.from_arrays(INDICES, pa.array([LONG]))
    ),
    "zeros": pa.array(np.zeros(3 << 20, np.float64)),
    "zeros in one list": pa.ListArray.from_arrays(pa.array([0, 3 << 20], pa.int32()), np.zeros(3 << 20, np.float64)),
    "one long string": pa.array(["x" * (24 << 20)]),
    "nulls": pa.nulls(6 << 20, pa.int32()),
    "null vectors": pa.nulls(1000, pa.list_(pa.float32(), 6000)),
    "lists of null vectors": pa.ListArray.from_arrays(
        pa.array([0, 1000], pa.int32()), pa.nulls(1000, pa.list_(pa.float32(), 6000))
    ),
}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused(tmp_path: Path, kind: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 20 << 20)
    table, options = pa.table({"a": BOMBS[kind]}), {"compression": "zstd", "data_page_version": version}
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8 << 20, **options)
    before = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match=r"column 'a.*' of row group 1 claims \d+ bytes in memory, and has \d+ in"):
        _read(tmp_path / "a.parquet")
    assert pa.total_allocated_bytes() - before < 4 << 20


def _disguised(tmp_path: Path, dictionary: int, data: int) -> Path:
    """4000 rows of one text of 1 MiB; types and encodings of its pages have bits that pyarrow ignores."""
    text = struct.pack("<I", len(LONG)) + LONG.encode()
    packed = pa.compress(text, "zstd", asbytes=True)
    indices = b"\x01" + thrift.varint(4000 << 1) + b"\0"
    rows = pa.compress(indices, "zstd", asbytes=True)
    first = thrift.page(2, packed, len(text), 1, thrift.PLAIN, dictionary)
    body = first + thrift.page(0, rows, len(indices), 4000, thrift.RLE_DICTIONARY, data)
    schema = [thrift.element("schema", children=1), thrift.element("a", thrift.BYTE_ARRAY, converted=0, repetition=0)]
    chunk = thrift.chunk("a", thrift.BYTE_ARRAY, 4000, 4, len(body), len(body), codec=thrift.ZSTD, data=4 + len(first))
    (tmp_path / "a.parquet").write_bytes(thrift.file(schema, 4000, [thrift.group([chunk], 4000)], body))
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(("dictionary", "data"), [(0, 0), (1 << 31, 0), (0, 1 << 31), (3 << 31, 5 << 31)])
def test_a_page_cannot_pass_for_another(
    tmp_path: Path, dictionary: int, data: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _disguised(tmp_path, dictionary, data)
    for batch in pq.ParquetFile(path).iter_batches(3):
        assert batch["a"].to_pylist() == [LONG] * 3  # it is one for pyarrow
        break
    with pytest.raises(ValueError, match="column 'a' of row group 1 claims 4"):
        _read(path)
    monkeypatch.setenv("TESSERA_MAX_ROW_GROUP_BYTES", str(1 << 40))
    batches = parquet.open_parquet(BoundedFile(io.FileIO(path))).iter_batches(3, use_threads=False)
    assert next(batches)["a"].to_pylist() == [LONG] * 3


def test_pages_of_no_known_type_are_refused(tmp_path: Path) -> None:
    """pyarrow skips them."""
    schema = [thrift.element("schema", children=1), thrift.element("a", thrift.INT32, repetition=0)]
    body = thrift.page(9, b"abc", 3, 1, thrift.PLAIN) + thrift.page(0, bytes(8), 8, 2, thrift.PLAIN)
    chunk = thrift.chunk("a", thrift.INT32, 2, 4, len(body), len(body))
    (tmp_path / "a.parquet").write_bytes(thrift.file(schema, 2, [thrift.group([chunk], 2)], body))
    with pytest.raises(ValueError, match="a page of type 9"):
        _read(tmp_path / "a.parquet")


def test_a_footer_that_changes_meanwhile_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    file = BoundedFile(io.FileIO(path))
    read_footer(file)
    data = path.read_bytes()
    with path.open("r+b") as other:
        other.seek(len(data) - 2000)
        other.write(bytes(2000))
    fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
    assert fragment.scanner().to_table().equals(TABLE)


@pytest.mark.parametrize(
    "kind", [pa.decimal32(2, 0), pa.decimal64(2, 0), pa.decimal128(2, 0), pa.decimal256(2, 0), pa.decimal128(12, 0)]
)
def test_decimals_take_what_arrow_makes_of_them(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"a": pa.array([7] * 5000, kind)})
    for integers in (False, True):
        pq.write_table(table, tmp_path / "a.parquet", store_decimal_as_integer=integers)
        file = BoundedFile(io.FileIO(tmp_path / "a.parquet"))
        assert parquet.open_parquet(file).read().nbytes <= file._decoded[0]


def test_a_chunk_that_is_read_again_with_more_bytes_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow reads 100 bytes more of files of an old writer: pages could hide in them."""
    pq.write_table(pa.table({"a": [1.5] * 100, "b": [1.5] * 100}), tmp_path / "a.parquet", use_dictionary=False)
    seen: list[int] = []

    def size(data: memoryview, *_: Any) -> tuple[int, bool]:
        seen.append(len(data))
        return len(data), True

    monkeypatch.setattr("pipeline.parquet.bounded_file.decoded_size", size)
    with BoundedFile(io.FileIO(tmp_path / "a.parquet")) as file:
        chunk = read_footer(file).metadata.row_group(0).column(0)
        own = chunk.total_compressed_size
        assert len(file.chunk(chunk)) == own
        for more in (0, 100, 100):
            file.seek(4)
            file.read(own + more)
        assert seen == [own, own + 100]
        assert (file._decoded[0], file._stored[0]) == (own + 100, own)


def test_half_of_a_bomb_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to a row group."""
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 20 << 20)
    table = pa.table({"a": np.zeros(4 << 20), "b": np.zeros(4 << 20)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1 << 20)
    assert _read(tmp_path / "a.parquet", ["a"]).equals(table.select(["a"]))
    with pytest.raises(ValueError, match="column 'b' of row group 1"):
        _read(tmp_path / "a.parquet")


def test_a_dataset_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of an hour without motion, in one row."""
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 1 << 20)
    table = pa.table({"a": np.zeros(1 << 20)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="if it is to be trusted, give TESSERA_MAX_ROW_GROUP_BYTES"):
        _read(tmp_path / "a.parquet")
    monkeypatch.setenv("TESSERA_MAX_ROW_GROUP_BYTES", str(1 << 25))
    assert _read(tmp_path / "a.parquet").equals(table)
    monkeypatch.setenv("TESSERA_MAX_ROW_GROUP_BYTES", "-1")
    with pytest.raises(ConfigError, match="TESSERA_MAX_ROW_GROUP_BYTES: found '-1'; a number of bytes"):
        _read(tmp_path / "a.parquet")


def test_what_the_file_itself_is_worth_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 1000)
    table = pa.table({"a": np.random.default_rng(0).standard_normal(100_000)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet").equals(table)


def test_one_long_text_among_many_short_ones_is_no_bomb(tmp_path: Path) -> None:
    """If all were as long as the longest, they would take 100 GB."""
    table = pa.table({"a": [LONG] + ["short", "words"] * 50_000})
    pq.write_table(table, tmp_path / "a.parquet")
    file = BoundedFile(io.FileIO(tmp_path / "a.parquet"))
    assert parquet.open_parquet(file).read().equals(table)
    assert table.nbytes <= file._decoded[0] < 4 * table.nbytes
    lists = pa.table({"a": [[LONG], *([["short", "words"]] * 50_000)]})
    pq.write_table(lists, tmp_path / "b.parquet")
    assert _read(tmp_path / "b.parquet").equals(lists)


def test_only_columns_are_read(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    file = BoundedFile(io.FileIO(tmp_path / "a.parquet"))
    metadata = read_footer(file).metadata
    start = metadata.row_group(0).column(0).data_page_offset
    for place, size in ((start + 1, 10), (4, 2)):
        file.seek(place)
        with pytest.raises(ValueError, match="are read"):
            file.read(size)


def test_a_file_of_nothing_but_a_hole_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.parquet").open("wb") as file:
        pq.write_table(TABLE, file)
        file.truncate(1 << 33)
        file.seek(0, 2)
        file.write(b"PAR1")
    with pytest.raises(ValueError, match="a file of 8589934596 bytes that is nearly all hole"):
        _read(tmp_path / "a.parquet")


def test_columns_beyond_the_file_s_end(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(9000)}), tmp_path / "a.parquet", compression="none")
    data = (tmp_path / "a.parquet").read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + data[-8 - length :])
    with pytest.raises(ValueError, match="column 'a' claims bytes"):
        _read(tmp_path / "a.parquet")


def test_the_whole_of_it_takes_no_memory(tmp_path: Path) -> None:
    """4 kB that claim 100 GB, with the default limits."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": BOMBS["a long value of a dictionary"]}), path, compression="zstd", store_schema=False)
    done = bounded.run("tests.parquet.programs.read_bounded_file", path)
    assert "column 'a' of row group 1 claims 68" in done.out
    assert done.out.endswith("\n0 threads more")  # a thread of pyarrow may abort a process that ends
    assert done.peak_mb < 400


def test_a_dictionary_of_millions_is_not_walked(tmp_path: Path) -> None:
    size = 200 << 20
    packed = pa.compress(bytes(size), "zstd", asbytes=True)
    rows = pa.compress(b"\x01\x02\x00", "zstd", asbytes=True)
    first = thrift.page(2, packed, size, size // 4, thrift.PLAIN)
    body = first + thrift.page(0, rows, 3, 1, thrift.RLE_DICTIONARY)
    schema = [thrift.element("schema", children=1), thrift.element("a", thrift.BYTE_ARRAY, converted=0, repetition=0)]
    options = {"codec": thrift.ZSTD, "data": 4 + len(first)}
    chunk = thrift.chunk("a", thrift.BYTE_ARRAY, 1, 4, len(body), len(body), **options)
    (tmp_path / "a.parquet").write_bytes(thrift.file(schema, 1, [thrift.group([chunk], 1)], body))
    file = BoundedFile(io.FileIO(tmp_path / "a.parquet"))
    metadata, started = read_footer(file).metadata, time.process_time()
    file.seek(4)
    file.read(metadata.row_group(0).column(0).total_compressed_size)
    assert time.process_time() - started < 2.0
    two = first + first + body[len(first) :]
    chunk = thrift.chunk("a", thrift.BYTE_ARRAY, 1, 4, len(two), len(two), **options)
    (tmp_path / "a.parquet").write_bytes(thrift.file(schema, 1, [thrift.group([chunk], 1)], two))
    with pytest.raises(ValueError, match="a dictionary behind other pages"):
        _read(tmp_path / "a.parquet")
