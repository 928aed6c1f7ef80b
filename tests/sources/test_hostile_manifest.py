"""Untrusted manifests: a small file does not fill the driver's memory, runs no code, and its error is one line."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.core.errors import ConfigError
from pipeline.sources._tables import parquet_table
from pipeline.sources.manifest import Config, ManifestSource
from tests.sources.bounded_manifests import MB, read
from tests.sources.test_manifest import listed, source
from tests.support import bounded, thrift

pytestmark = pytest.mark.timeout(300)


def stored(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", **options)
    return file.getvalue()


def _ids(count: int) -> pa.Array:
    return pa.array([str(i) for i in range(count)])


# -- Parquet: few bytes that become many ----------------------------------------------------------


def _dictionary() -> bytes:
    """One text of 40 MB, to which a million rows refer."""
    rows = 100_000
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * (40 * MB)]))
    return stored(pa.table({"id": pa.nulls(rows, pa.string()).fill_null("i"), "t": one}))


def _middling_dictionary() -> bytes:
    """Two hundred texts of some kilobytes, to which a million rows refer: each batch is large, too."""
    rows = 100_000
    texts = pa.array(["x" * (200_000 + i) for i in range(200)])
    one = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows, dtype=np.int32) % 200), texts)
    return stored(pa.table({"id": pa.nulls(rows, pa.string()).fill_null("i"), "t": one}), store_schema=False)


def _prefixes() -> bytes:
    """Each text equals the one before, which is a megabyte long."""
    texts = pa.array(["x" * MB] * 3000)
    options = {"use_dictionary": False, "column_encoding": {"id": "PLAIN", "t": "DELTA_BYTE_ARRAY"}}
    return stored(pa.table({"id": _ids(3000), "t": texts}), **options)


def _page() -> bytes:
    """One page of many long texts, without a dictionary."""
    texts = pa.array(["x" * (30 * MB)] * 30, pa.large_string())
    return stored(pa.table({"id": _ids(30), "t": texts}), use_dictionary=False, data_page_size=1 << 30)


def _hand_made(kind: int, page: bytes, values: int, rows: int = 1, **more: Any) -> bytes:
    """A manifest whose column ``t`` has this page."""
    element = more.pop("element", [thrift.element("t", kind, **more.pop("schema", {}))])
    ids = struct.pack("<I", 2) + b"\x02\x01" + b"".join(struct.pack("<I", 1) + b"a" for _ in range(1))
    first = thrift.page(0, ids, len(ids), 1, thrift.PLAIN)
    schema = [thrift.element("schema", children=2), thrift.element("id", thrift.BYTE_ARRAY, converted=0), *element]
    chunks = [
        thrift.chunk("id", thrift.BYTE_ARRAY, 1, 4, len(first), len(first)),
        thrift.chunk(more.pop("path", "t"), kind, values, more.pop("start", 4 + len(first)), len(page), 10, **more),
    ]
    metadata = more.pop("metadata", {})
    return thrift.file(schema, rows, [thrift.group(chunks, rows)], first + page, **metadata)


TEXT = {"converted": 0}


def _claimed_page() -> bytes:
    """The footer claims ten bytes, the page header two gigabytes."""
    data = pa.compress(b"\0" * 100, "zstd", asbytes=True)
    return _hand_made(
        thrift.BYTE_ARRAY, thrift.page(0, data, 2**31 - 1, 1, thrift.PLAIN), 1, codec=thrift.ZSTD, schema=TEXT
    )


def _claimed_dictionary() -> bytes:
    data = pa.compress(b"\0" * 100, "zstd", asbytes=True)
    pages = thrift.page(2, data, 2**31 - 1, 2**31 - 1, thrift.PLAIN)
    return _hand_made(thrift.BYTE_ARRAY, pages + thrift.page(0, b"\0" * 8, 8, 1, 8), 1, codec=thrift.ZSTD, schema=TEXT)


def _disguised_dictionary() -> bytes:
    """Its type has bits that Thrift's C++ parser ignores."""
    text = struct.pack("<I", MB) + b"x" * MB
    packed, indices = pa.compress(text, "zstd", asbytes=True), b"\x01" + thrift.varint(20_000 << 1) + b"\0"
    levels = thrift.varint(20_000 << 1) + b"\x01"
    rows = struct.pack("<I", len(levels)) + levels + indices
    first = thrift.page(2, packed, len(text), 1, thrift.PLAIN, disguise=1 << 31)
    second = thrift.page(0, pa.compress(rows, "zstd", asbytes=True), len(rows), 20_000, thrift.RLE_DICTIONARY)
    options = {"codec": thrift.ZSTD, "schema": TEXT, "element": [thrift.element("t", thrift.BYTE_ARRAY, **TEXT)]}
    return _hand_made(thrift.BYTE_ARRAY, first + second, 20_000, rows=20_000, **options)


LIST = [
    [*thrift.element("t", children=1, repetition=1, converted=3)],
    [*thrift.element("list", children=1, repetition=2)],
    [*thrift.element("element", thrift.INT32)],
]


def _levels(count: int, null: int) -> bytes:
    """The levels of one list of ``count`` nulls, in a few bytes: runs of equal levels."""
    repetition = b"\x02\x00" + thrift.varint((count - 1) << 1) + b"\x01"
    definition = thrift.varint(count << 1) + bytes([null])
    return b"".join(struct.pack("<I", len(one)) + one for one in (repetition, definition))


def _nested() -> bytes:
    """One row that is a list of a billion nulls."""
    count = 10**9
    data = _levels(count, 2)
    page = thrift.page(0, data, len(data), count, thrift.PLAIN)
    return _hand_made(thrift.INT32, page, count, element=LIST, path="t.list.element")


def _wide_null() -> bytes:
    """A null of a type that has room for two billion numbers."""
    kind = pa.list_(pa.int32(), 2**31 - 1)
    schema = pa.schema([("id", pa.string()), ("t", kind)])
    value = base64.b64encode(schema.serialize().to_pybytes())
    data = struct.pack("<I", 2) + b"\x02\x00" + struct.pack("<I", 2) + b"\x02\x00"
    page = thrift.page(0, data, len(data), 1, thrift.PLAIN)
    return _hand_made(thrift.INT32, page, 1, element=LIST, path="t.list.element", metadata={"ARROW:schema": value})


def _wide_bytes() -> bytes:
    """A null of a binary type with a large fixed length."""
    data = struct.pack("<I", 2) + b"\x02\x00"
    page = thrift.page(0, data, len(data), 1, thrift.PLAIN)
    return _hand_made(thrift.FIXED, page, 1, schema={"length": 2**31 - 1})


def _outside() -> bytes:
    data = thrift.page(0, b"", 0, 1, thrift.PLAIN)
    return _hand_made(thrift.BYTE_ARRAY, data, 1, start=2**40, schema=TEXT)


def _many_groups() -> bytes:
    schema = [thrift.element("schema", children=1), thrift.element("id", thrift.BYTE_ARRAY)]
    return thrift.file(schema, 0, [thrift.group([], 0)] * 1_000_000)


def _many_columns() -> bytes:
    schema = [thrift.element("schema", children=1_000_000)]
    return thrift.file(schema + [thrift.element(f"{i}", thrift.INT32) for i in range(1_000_000)], 0, [])


BOMBS: dict[str, tuple[Callable[[], bytes], str, dict[str, Any]]] = {
    "a dictionary": (_dictionary, "give source.max_bytes", {}),
    "a dictionary of middling texts": (_middling_dictionary, "give source.max_bytes", {}),
    "prefixes": (_prefixes, "give source.max_bytes", {}),
    "a page": (_page, "give source.max_cell_bytes", {}),
    "a page that the footer does not tell of": (_claimed_page, "takes 2147483647 bytes", {}),
    "a dictionary that the footer does not tell of": (_claimed_dictionary, "takes 2147483647 bytes", {}),
    "a dictionary in disguise": (_disguised_dictionary, "", {}),
    "a list of nulls": (_nested, "may take 72000000000 bytes", {"passthrough": ["t"]}),
    "a null of a wide list": (_wide_null, "each null takes 17179869176 bytes", {"passthrough": ["t"]}),
    "a null of wide bytes": (_wide_bytes, "each null takes 2147483647 bytes", {"passthrough": ["t"]}),
    "bytes that are not there": (_outside, "claims bytes", {}),
    "a million row groups": (_many_groups, "cannot read", {}),
    "a million columns": (_many_columns, "cannot read", {}),
}


_LONG_BOMBS = ("a dictionary", "a dictionary of middling texts", "prefixes", "a million columns")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _LONG_BOMBS else []) for name in BOMBS]
)
def test_few_bytes_of_parquet_take_no_memory(tmp_path: Path, name: str) -> None:
    make, why, options = BOMBS[name]
    path = tmp_path / "m.parquet"
    path.write_bytes(make())
    assert path.stat().st_size < 64 * MB
    if options:
        options = {**options, "columns": {"id": "id", "image": "id"}}
    done = read(path, **options)
    assert done.out.startswith("ERROR"), done.out
    assert why in done.out
    assert str(path) in done.out or "source.passthrough: column 't'" in done.out
    assert done.peak_mb < 1400


# -- what is good stays good ----------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", ["dictionary", "plain", "delta"])
def test_every_way_of_writing_parquet_reads_as_plain_pyarrow_does(
    tmp_path: Path, codec: str, version: str, encoding: str
) -> None:
    rng = np.random.default_rng(0)
    count = 3000
    table = pa.table(
        {
            "id": [f"id-{i:05d}" for i in range(count)],
            "t": [None if i % 7 == 0 else f"text {i % 50} " * int(rng.integers(1, 30)) for i in range(count)],
            "label": pa.array([f"l{i % 3}" for i in range(count)]).dictionary_encode(),
            "n": pa.array(rng.integers(0, 9, count)),
            "tags": [[f"tag{i % 5}"] * (i % 4) for i in range(count)],
            "vector": pa.array(rng.normal(size=(count, 8)).tolist(), pa.list_(pa.float32(), 8)),
            "where": [None if i % 5 == 0 else {"x": i, "y": [str(i)]} for i in range(count)],
            "sha": pa.array([bytes(rng.bytes(16)) for _ in range(count)], pa.binary(16)),
        }
    )
    options: dict[str, Any] = {"use_dictionary": encoding == "dictionary"}
    if encoding == "delta":
        options["column_encoding"] = {"id": "DELTA_BYTE_ARRAY", "t": "DELTA_LENGTH_BYTE_ARRAY"}
    path = tmp_path / "m.parquet"
    pq.write_table(
        table, path, compression=codec, data_page_version=version, row_group_size=1000, data_page_size=4000, **options
    )
    extra = [name for name in table.column_names if name not in ("id", "t")]
    found = listed(path, {"id": "id", "inline_text": "t"}, passthrough=extra)
    expected = {row["id"]: row for row in pq.read_table(path).to_pylist()}
    assert len(found) == count
    for key, row in found.items():
        assert {name: row[name] for name in extra} == {name: expected[key][name] for name in extra}
        assert row["inline_text"] == expected[key]["t"]


def test_long_values_of_a_dictionary_come_in_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array(["x" * 100_000, "y"])
    path = tmp_path / "m.parquet"
    table = pa.table({"id": _ids(500), "t": pa.DictionaryArray.from_arrays(np.arange(500, dtype=np.int32) % 2, texts)})
    pq.write_table(table, path, store_schema=False)
    monkeypatch.setattr(parquet_table, "_BATCH_BYTES", 2 * MB)
    made = source(path, {"id": "id", "inline_text": "t"})
    tables = list(made.list())
    assert max(map(len, tables)) <= 20
    assert sum(map(len, tables)) == 500


@pytest.mark.parametrize(("limit", "why"), [(50, "a value of 't' from row 1 on in .* has 60 bytes"), (60, None)])
def test_the_limit_of_a_value(tmp_path: Path, limit: int, why: str | None) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "t": ["x" * 60, "y"]}), path)
    for form in ("parquet", "csv", "jsonl"):
        if form == "csv":
            path = tmp_path / "m.csv"
            path.write_text(f"id,t\na,{'x' * 60}\nb,y\n")
        elif form == "jsonl":
            path = tmp_path / "m.jsonl"
            path.write_text("".join(json.dumps({"id": i, "t": t}) + "\n" for i, t in (("a", "x" * 38), ("b", "y"))))
            why = why and r"line 1 of .* has more than 50 bytes"
        if why:
            why = why.replace("from row 1 on in", "in") if form == "csv" else why
            with pytest.raises(ConfigError, match=f"{why}.*; give source.max_cell_bytes"):
                listed(path, {"id": "id", "inline_text": "t"}, max_cell_bytes=limit)
        else:
            assert sorted(listed(path, {"id": "id", "inline_text": "t"}, max_cell_bytes=limit)) == ["a", "b"]


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_the_limit_of_all_values(tmp_path: Path, form: str) -> None:
    rows = [{"id": f"i{i}", "t": "some words"} for i in range(100)]
    path = tmp_path / f"m.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        path.write_text("id,t\n" + "".join(f"{row['id']},{row['t']}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(listed(path, {"id": "id", "inline_text": "t"}, max_bytes=6000)) == 100
    with pytest.raises(ConfigError, match=r"more than 1000 bytes.*; give source.max_bytes if the manifest is to be"):
        listed(path, {"id": "id", "inline_text": "t"}, max_bytes=1000)


# -- code, and values that Python cannot hold -----------------------------------------------------


def test_a_pickled_column_runs_nothing(tmp_path: Path) -> None:
    """With the types that Ray registers, as in a command that has started Ray."""
    path, flag = tmp_path / "m.parquet", tmp_path / "ran"
    bounded.run("tests.sources.programs.write_pickled_columns", path, flag)
    config = {
        "source": {"kind": "manifest", "path": str(path), "columns": {"image": "pic"}, "passthrough": ["top", "list"]},
        "output": {"path": str(tmp_path / "out")},
        "features": {
            "t": {
                "modality": "image",
                "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
                "encoder": {"kind": "raw"},
                "emit": ["tokens"],
            }
        },
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    done = bounded.run("tests.sources.programs.plan_with_ray_types", tmp_path / "c.yaml")
    assert not flag.exists()
    assert "END 0" in done.out
    assert "2" in done.out
    found = listed(path, {"image": "pic"}, passthrough=["top", "list", "struct"])
    assert {type(row["top"]) for row in found.values()} == {bytes}
    assert {type(row["struct"]["in"]) for row in found.values()} == {bytes}
    assert not flag.exists()


def test_a_column_that_nobody_reads_may_be_of_any_type(tmp_path: Path) -> None:
    path, flag = tmp_path / "m.parquet", tmp_path / "ran"
    bounded.run("tests.sources.programs.write_pickled_columns", path, flag)
    assert sorted(listed(path, {"image": "pic"})) == ["a.png", "b.png"]


def test_a_time_that_python_cannot_hold_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    times = pa.array([2**62], pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"pic": ["a.png"], "when": times}), path)
    with pytest.raises(ConfigError, match=r"row 1 of 'm\.parquet' has in column 'when' a value that cannot be read"):
        listed(path, {"image": "pic"}, passthrough=["when"])


def test_mistakes_name_no_million_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(",".join(f"c{i}" for i in range(10_000)) + "\n")
    with pytest.raises(ConfigError, match=r"no column 'p' in the manifest; one of: 'c0', 'c1', .*'c49', …$"):
        source(path, {"image": "p"})


def test_defaults_are_those_of_the_docs() -> None:
    config = Config(path="x", columns={"image": "p"})  # type: ignore[arg-type]
    assert (config.max_cell_bytes, config.max_bytes) == (64 * MB, None)
    assert ManifestSource(config).where == "source"


@pytest.mark.parametrize("words", [500, 60_000])
def test_honest_lists_of_words_are_copied(tmp_path: Path, words: int) -> None:
    """Few words that many rows share, one of them long."""
    rng, count = np.random.default_rng(0), 50_000
    some = pa.array(["long " * 200, *(f"word{i}" for i in range(words - 1))]).take(rng.integers(0, words, count * 5))
    tags = pa.ListArray.from_arrays(pa.array(np.arange(0, count * 5 + 1, 5, dtype=np.int32)), some)
    table = pa.table({"id": [f"{i}.jpg" for i in range(count)], "tags": tags})
    pq.write_table(table, tmp_path / "m.parquet")
    config = Config(path=str(tmp_path / "m.parquet"), columns={"image": "id"}, passthrough=("tags",))
    source = ManifestSource(config)
    source.check("source")
    found = pa.concat_tables(source.list()).sort_by("sample_id")
    assert found["tags"].equals(table.sort_by("id")["tags"])
