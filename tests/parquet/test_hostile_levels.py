"""Levels of Parquet pages that claim more than they hold are refused before they take time or memory."""

from __future__ import annotations

import base64
import io
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet
from pipeline.parquet.bounded_file import BoundedFile
from tests.support import bounded, thrift


def _vectors(tmp_path: Path, pages: bytes, values: int, rows: int = 1) -> Path:
    """A file whose column ``a`` holds lists of vectors of two numbers, and has these pages."""
    schema = [
        thrift.element("schema", children=1),
        thrift.element("a", children=1, repetition=1, converted=3),
        thrift.element("list", children=1, repetition=2),
        thrift.element("element", children=1, repetition=1, converted=3),
        thrift.element("list", children=1, repetition=2),
        thrift.element("element", thrift.INT32),
    ]
    path = "a.list.element.list.element"
    chunk = thrift.chunk(path, thrift.INT32, values, 4, len(pages), len(pages), codec=thrift.ZSTD)
    arrow = base64.b64encode(pa.schema([("a", pa.list_(pa.list_(pa.int32(), 2)))]).serialize().to_pybytes())
    data = thrift.file(schema, rows, [thrift.group([chunk], rows)], pages, **{"ARROW:schema": arrow})
    (tmp_path / "a.parquet").write_bytes(data)
    return tmp_path / "a.parquet"


_REPETITION = b"\x02\x00\x00\x00\x02\x00"
"""One run of one level, 0."""


def _page_of_levels(definition: bytes, claimed: int | None = None, repetition: bytes = _REPETITION) -> bytes:
    data = repetition + struct.pack("<I", len(definition)) + definition
    packed = pa.compress(data, "zstd", asbytes=True)
    return thrift.page(0, packed, len(data) if claimed is None else claimed, 1, thrift.PLAIN)


@pytest.mark.parametrize(
    ("page", "values", "why"),
    [
        (_page_of_levels(b"\0\0" * (1 << 20) + b"\x02\0"), 1, "a run of no levels"),
        (_page_of_levels(thrift.varint((50 << 20) << 1 | 1) + bytes(150 << 20), 1000), 1, "more levels than bytes"),
        (
            _page_of_levels(b"\x02\0", 1000, struct.pack("<I", 200 << 20) + bytes(200 << 20)),
            1,
            "more levels than bytes",
        ),
        (_page_of_levels(b"\x02\xff"), 1, "a level that is too high"),
    ],
    ids=["runs of nothing", "a packed run", "repetition", "a high level"],
)
def test_levels_take_no_time_and_no_memory(tmp_path: Path, page: bytes, values: int, why: str) -> None:
    path = _vectors(tmp_path, page, values)
    started, before = time.process_time(), pa.total_allocated_bytes()
    with pytest.raises(ValueError, match=why):
        parquet.open_parquet(BoundedFile(io.FileIO(path))).read(use_threads=False)
    assert time.process_time() - started < 2.0
    assert pa.total_allocated_bytes() - before < 50 << 20


def test_a_packed_run_is_unpacked_as_far_as_the_page_has_values(tmp_path: Path) -> None:
    page = _page_of_levels(thrift.varint((20 << 20) << 1 | 1) + bytes(60 << 20))
    path = _vectors(tmp_path, page, 1)
    done = bounded.run("tests.parquet.programs.read_bounded_file", path)
    assert done.out.startswith("[None]\n")
    assert done.peak_mb < 350


def test_lists_in_lists_count_for_their_offsets(tmp_path: Path) -> None:
    deep, kind = pa.array(np.zeros(1000, np.int8)), pa.int8()
    for _ in range(30):
        kind = pa.list_(kind)
        deep = pa.ListArray.from_arrays(pa.array(np.arange(len(deep) + 1, dtype=np.int32)), deep)
    table = pa.table({"a": deep})
    pq.write_table(table, tmp_path / "a.parquet")
    file = BoundedFile(io.FileIO(tmp_path / "a.parquet"))
    assert parquet.open_parquet(file).read().equals(table)
    assert table.nbytes <= file._decoded[0]
