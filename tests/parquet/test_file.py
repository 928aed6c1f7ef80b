"""An untrusted Parquet file is opened without loading extension types, and within limits."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet
from pipeline.parquet.file import read_footer
from tests.support import ROOT, bounded, thrift


class Dangerous(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A type whose parameters decide what happens when it is loaded, as in Ray 2.49 to 2.54."""

    looked_up: ClassVar[list[bytes]] = []

    def __init__(self, storage: pa.DataType, parameters: bytes = b"p") -> None:
        self.parameters = parameters
        super().__init__(storage, "tests.dangerous")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.parameters

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, parameters: bytes) -> Dangerous:
        cls.looked_up.append(parameters)
        return Dangerous(storage, parameters)


@pytest.fixture
def registered() -> Any:
    """Registers the type in pyarrow. Returns the parameters that were loaded."""
    pa.register_extension_type(Dangerous(pa.binary()))
    Dangerous.looked_up.clear()
    yield Dangerous.looked_up
    pa.unregister_extension_type("tests.dangerous")


def nested(kind: str) -> tuple[pa.Array, Any]:
    """A column with the type at some depth, and its value in the storage type."""
    values = pa.array([b"x", b"y"])
    ext = pa.ExtensionArray.from_storage(Dangerous(pa.binary()), values)
    pairs = pa.MapArray.from_arrays([0, 1, 2], pa.array(["k", "l"]), ext)
    deep = pa.ListArray.from_arrays([0, 1, 2], pa.StructArray.from_arrays([ext], names=["in"]))
    return {
        "top": (ext, [b"x", b"y"]),
        "list": (pa.ListArray.from_arrays([0, 1, 2], ext), [[b"x"], [b"y"]]),
        "struct": (pa.StructArray.from_arrays([ext], names=["in"]), [{"in": b"x"}, {"in": b"y"}]),
        "map": (pairs, [[("k", b"x")], [("l", b"y")]]),
        "list of struct": (deep, [[{"in": b"x"}], [{"in": b"y"}]]),
    }[kind]


def stored(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


KINDS = ("top", "list", "struct", "map", "list of struct")


@pytest.mark.parametrize("kind", KINDS)
def test_an_extension_type_is_its_storage_and_never_looked_up(registered: list[bytes], kind: str) -> None:
    column, expected = nested(kind)
    data = stored(pa.table({"a": [1, 2], "b": column}))
    registered.clear()
    opened = parquet.open_parquet(io.BytesIO(data))
    table = opened.read()
    assert registered == []
    assert table["b"].to_pylist() == expected
    assert table["a"].to_pylist() == [1, 2]
    assert read_footer(io.BytesIO(data)).as_storage
    pq.ParquetFile(io.BytesIO(data))
    assert registered, "pyarrow's own reader looks it up"


@pytest.mark.parametrize("how", ["twice", "not base64", "another alphabet", "no schema"])
def test_a_schema_that_two_parsers_may_read_differently_is_not_read(registered: list[bytes], how: str) -> None:
    data = stored(pa.table({"b": nested("top")[0]}))
    value = pq.read_metadata(io.BytesIO(data)).metadata[b"ARROW:schema"]
    registered.clear()
    columns = [thrift.element("schema", children=1), thrift.element("b", thrift.BYTE_ARRAY)]
    odd = {
        "not base64": value[:10] + b"\n" + value[10:],
        "another alphabet": value.replace(b"A", b"-"),
        "no schema": b"=",
    }
    if how == "twice":
        fields = [(1, "i32", 2), (2, "list:struct", columns), (3, "i64", 0), (4, "list:struct", [])]
        pair = [(1, "binary", b"ARROW:schema"), (2, "binary", value)]
        footer = thrift.struct(
            [*fields, (5, "list:struct", [pair, [(1, "binary", b"ARROW:schema"), (2, "binary", b"")]])]
        )
        file = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    else:
        file = thrift.file(columns, 0, [], **{"ARROW:schema": odd[how]})
    opened = parquet.open_parquet(io.BytesIO(file))
    assert registered == []
    assert opened.schema_arrow.names == ["b"]
    assert opened.schema_arrow.field("b").type == pa.binary()


def test_a_second_value_of_one_key_is_the_one_that_counts(registered: list[bytes]) -> None:
    """Thrift uses the last value of a field; a parser that reads the first one only would be deceived."""
    data = stored(pa.table({"b": nested("top")[0]}))
    harmless = pq.read_metadata(io.BytesIO(stored(pa.table({"b": [b"x"]})))).metadata[b"ARROW:schema"]
    value = pq.read_metadata(io.BytesIO(data)).metadata[b"ARROW:schema"]
    registered.clear()
    columns = [thrift.element("schema", children=1), thrift.element("b", thrift.BYTE_ARRAY)]
    pair = [(1, "binary", b"ARROW:schema"), (2, "binary", harmless), (2, "binary", value)]
    fields = [(1, "i32", 2), (2, "list:struct", columns), (3, "i64", 0), (4, "list:struct", [])]
    footer = thrift.struct([*fields, (5, "list:struct", [pair])])
    file = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    opened = parquet.open_parquet(io.BytesIO(file))
    assert registered == []
    assert opened.schema_arrow.field("b").type == pa.binary()
    pq.ParquetFile(io.BytesIO(file))
    assert registered, "pyarrow takes the second"


def test_ordinary_files_are_what_pyarrow_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "s": pa.array(["a", None, "c"], pa.large_string()),
            "d": pa.array(["x", "x", "y"]).dictionary_encode(),
            "v": pa.array(rng.normal(size=(3, 4)).astype(np.float16).tolist(), pa.list_(pa.float16(), 4)),
            "t": pa.array([1, 2, 3], pa.timestamp("us", "Europe/Berlin")),
            "n": pa.array([{"a": [1]}, None, {"a": []}]),
        }
    ).replace_schema_metadata({b"tessera": b"{}"})
    for options in ({}, {"store_schema": False}, {"row_group_size": 1, "compression": "zstd"}):
        data = stored(table, **options)
        opened = parquet.open_parquet(io.BytesIO(data))
        expected = pq.ParquetFile(io.BytesIO(data))
        assert opened.schema_arrow.equals(expected.schema_arrow, check_metadata=True)
        assert opened.read().equals(expected.read())
        assert not read_footer(pa.BufferReader(data)).as_storage
    long = pa.table({"a": [1]}).replace_schema_metadata({b"x": b"y" * 300_000})
    assert parquet.open_parquet(pa.BufferReader(stored(long))).schema_arrow.metadata[b"x"] == b"y" * 300_000


def test_logical_types_are_plain_ones() -> None:
    """The JSON and UUID types of Parquet do not become extension types either."""
    schema = [thrift.element("schema", children=1), thrift.element("j", thrift.BYTE_ARRAY, converted=19)]
    opened = parquet.open_parquet(io.BytesIO(thrift.file(schema, 0, [])))
    assert not isinstance(opened.schema_arrow.field("j").type, pa.BaseExtensionType)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no Parquet file: 0 bytes"),
        (b"PAR1" + b"\0" * 20, "its last bytes are not PAR1"),
        (b"PAR1" + b"\0" * 20 + (2**31).to_bytes(4, "little") + b"PAR1", "its footer claims 2147483648 bytes"),
        (b"PAR1" + b"\0" * 20 + (21).to_bytes(4, "little") + b"PAR1", "its footer claims|thrift"),
        (b"PAR1" + b"\xff" * 20 + (20).to_bytes(4, "little") + b"PAR1", "thrift"),
    ],
)
def test_what_is_no_parquet_file(data: bytes, why: str) -> None:
    with pytest.raises((pa.ArrowException, OSError), match=why):
        parquet.open_parquet(io.BytesIO(data))


def test_a_schema_nested_without_end_does_not_end_the_process() -> None:
    deep = [thrift.element("s", children=1, repetition=1) for _ in range(50_000)]
    schema = [thrift.element("schema", children=1), *deep, thrift.element("x", thrift.INT32)]
    with pytest.raises(OSError, match="too deeply nested"):
        parquet.open_parquet(io.BytesIO(thrift.file(schema, 0, [])))


@pytest.mark.parametrize("claim", ["columns of a group", "row groups", "elements of the schema"])
def test_a_list_that_claims_millions_takes_no_memory_for_them(tmp_path: Path, claim: str) -> None:
    columns = [thrift.element("schema", children=1), thrift.element("x", thrift.INT32)]
    many = bytes([0xFC]) + thrift.varint(999_999)
    start = thrift.struct([(1, "i32", 2), (2, "list:struct", columns), (3, "i64", 0)])[:-1]
    footer = {
        "columns of a group": start + bytes([0x19, 0x1C, 0x19]) + many,
        "row groups": start + bytes([0x19]) + many,
        "elements of the schema": thrift.struct([(1, "i32", 2)])[:-1] + bytes([0x19]) + many,
    }[claim] + b"\0" * 16
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert int(bounded.run("tests.parquet.programs.print_memory_of_refusal", path).out) < 100


def test_no_other_module_opens_a_parquet_file() -> None:
    """`units` reads a file of its own run, whose name is unpredictable."""
    doors = {"ParquetFile", "ParquetDataset", "read_table", "read_schema", "read_metadata", "read_pandas", "dataset"}
    doors |= {"parquet_dataset", "FileSystemDataset", "ParquetFileFormat", "open_csv", "read_feather"}
    found = set()
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of = node.func.value
            if isinstance(of, ast.Name) and of.id in ("pq", "ds", "pa", "csv") and node.func.attr in doors:
                found.add((str(path.relative_to(ROOT)), node.func.attr))
    assert found == {
        ("pipeline/parquet/file.py", "ParquetFile"),
        ("pipeline/parquet/decoded_size.py", "ParquetFile"),  # of a file that is open, with its footer
        ("pipeline/parquet/regular_lists.py", "ParquetFile"),  # made in memory
        ("pipeline/stages/units.py", "ParquetFile"),
        ("pipeline/dataset/shards/filters.py", "dataset"),  # of a table
        ("pipeline/dataset/_checks.py", "dataset"),  # of a table
    }
