"""A folder of Parquet files is one manifest: every row of every file, in order, each with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as arrow_dataset
import pyarrow.parquet as pq
import pytest

from pipeline import parquet
from pipeline.core.errors import ConfigError
from pipeline.core.schema import LISTING
from pipeline.sources import manifest as module
from pipeline.sources._manifest.uris import UriResolver
from pipeline.sources._tables import parquet_folder_files
from pipeline.sources.manifest import Config
from tests.sources.manifest_parts import COLUMNS, part, places
from tests.sources.test_manifest import listed, source
from tests.support import faulty, thrift


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Spark writes it, with files that are not parts of the table."""
    root = tmp_path / "list.parquet"
    part(root, "part-00001.snappy.parquet", ["c", "d"])
    part(root, "part-00000.snappy.parquet", ["a", "b"])
    part(root, "day=2/part-0.parquet", ["f"])
    part(root, "day=1/hour=3/part-0.PARQUET", ["e"])
    part(root, "more/x.pq", ["g"])
    for hidden in ("_temporary/0/x.parquet", "_x.parquet", ".y.parquet", ".hidden/z.parquet", "day=1/_old.parquet"):
        part(root, hidden, ["hidden"])
    for name in ("_SUCCESS", "_metadata", ".part-00000.snappy.parquet.crc", "readme.txt", "day=1/_SUCCESS"):
        (root / name).write_text("no parquet")
    return root


ORDER = {
    "e": "row 1 of day=1/hour=3/part-0.PARQUET",
    "f": "row 1 of day=2/part-0.parquet",
    "g": "row 1 of more/x.pq",
    "a": "row 1 of part-00000.snappy.parquet",
    "b": "row 2 of part-00000.snappy.parquet",
    "c": "row 1 of part-00001.snappy.parquet",
    "d": "row 2 of part-00001.snappy.parquet",
}


def test_every_row_of_every_file_in_order_of_paths(folder: Path) -> None:
    for path in (str(folder), f"{folder}/", f"file://{folder}", os.path.relpath(folder)):
        made = source(path, COLUMNS)
        assert list(places(made).items()) == list(ORDER.items())
        found = pa.concat_tables(made.list())
        assert found.schema.equals(LISTING)
        assert {row["sample_id"]: row["inline_text"] for row in found.to_pylist()} == {
            one: f"words {one}" for one in ORDER
        }


@pytest.mark.parametrize("url", ["memory://in/list.parquet", "s3://corpus/in/list.parquet"])
def test_on_object_stores_too(folder: Path, url: str, s3: Any) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())
    if url.startswith("s3"):
        s3.pipe_file("corpus/in/list.parquet/", b"")  # what some tools write for a folder
        s3.pipe_file("corpus/in/list.parquet/empty/", b"")
    s3.pipe_file("corpus/in/list.parquet2/x.parquet", b"another's")
    s3.pipe_file("corpus/bad//x.parquet", b"of a folder without a name")
    with pytest.raises(ConfigError, match=r"a key below 'corpus/bad' has an empty name in its path"):
        source("s3://corpus/bad", COLUMNS)
    for path in (url, f"{url}/"):
        assert list(places(source(path, COLUMNS)).items()) == list(ORDER.items())
    fs.rm(root, recursive=True)


def test_a_bucket_as_a_folder_allows_no_other_bucket(s3: Any, tmp_path: Path) -> None:
    part(tmp_path, "p.parquet", ["a.jpg", "s3://other/b.jpg", "s3://corpus/c.jpg"])
    s3.pipe_file("corpus/p.parquet", (tmp_path / "p.parquet").read_bytes())
    found = listed("s3://corpus", {"image": "id"})
    assert {row["image_uri"]: row["forbidden"] for row in found.values()} == {
        "s3://corpus/a.jpg": None,
        "s3://other/b.jpg": True,
        "s3://corpus/c.jpg": None,
    }


def test_relative_uris_are_relative_to_what_holds_the_folder(folder: Path) -> None:
    for path in (str(folder), f"{folder}/"):
        found = listed(path, {"image": "id"})
        assert {name: row["image_uri"] for name, row in found.items()} == {
            one: f"{folder.parent}/{one}" for one in ORDER
        }
        assert not any(row["forbidden"] for row in found.values())


def test_it_is_the_one_table_that_pyarrow_reads(tmp_path: Path) -> None:
    """A folder of many files whose types differ and are compatible."""
    rng = np.random.default_rng(0)
    kinds = [pa.int8(), pa.int64(), pa.int32()]
    for number in range(12):
        count = int(rng.integers(0, 40))
        columns = {
            "n": pa.array(rng.integers(0, 100, count), kinds[number % 3]),
            "label": pa.array([f"l{i % 3}" for i in range(count)], pa.string() if number % 2 else pa.large_string()),
            "tags": pa.array([[i] * (i % 3) for i in range(count)], pa.list_(kinds[(number + 1) % 3])),
            "nothing": pa.nulls(count) if number < 6 else pa.array([f"s{i}" for i in range(count)]),
            "other": pa.array([number] * count) if number % 2 else pa.array(["x"] * count),
        }
        ids = [f"{number:02}-{i}" for i in range(count)]
        part(tmp_path, f"d{number % 4}/{number}.parquet", ids, **columns)
    names = ["n", "label", "tags", "nothing"]
    made = source(str(tmp_path), COLUMNS, passthrough=names)
    found = pa.concat_tables(made.list()).sort_by("sample_id")
    assert found.schema.equals(pa.schema([*LISTING, *made.passthrough()]))
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("n", pa.int64()),
            ("label", pa.large_string()),
            ("tags", pa.list_(pa.int64())),
            ("nothing", pa.string()),
        ]
    )
    assert [made.passthrough().field(name).type for name in names] == [schema.field(name).type for name in names]
    expected = arrow_dataset.dataset(str(tmp_path), schema=schema, format="parquet").to_table().sort_by("id")
    assert found.select(names).to_pydict() == expected.select(names).to_pydict()
    assert found["sample_id"].to_pylist() == expected["id"].to_pylist()


def test_dictionaries_and_strings_are_one_type(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", ["a"], kind=pa.array(["x"]).dictionary_encode())
    part(tmp_path, "b.parquet", ["b"], kind=pa.array(["y"]))
    found = listed(str(tmp_path), COLUMNS, passthrough=["kind"])
    assert {name: row["kind"] for name, row in found.items()} == {"a": "x", "b": "y"}


def test_integer_ids_of_two_widths_are_the_same_ids(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", pa.array([1], pa.int32()))
    part(tmp_path, "b.parquet", pa.array([2], pa.int64()))
    assert set(listed(str(tmp_path), COLUMNS)) == {"1", "2"}


def test_files_without_rows_are_fine(tmp_path: Path) -> None:
    empty = pa.table({"id": pa.nulls(0), "t": pa.array([], pa.string())})
    for name in ("a.parquet", "c.parquet"):
        pq.write_table(empty, tmp_path / name)
    part(tmp_path, "b.parquet", ["x"])
    assert set(listed(str(tmp_path), COLUMNS)) == {"x"}
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(ConfigError, match=r"source\.path: no row in"):
        listed(str(tmp_path), COLUMNS)


# -- files that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["b"]}, "no column 't' in 'b.parquet'"),
        (
            {"id": ["b"], "t": [1]},
            "column 't' of 'b.parquet' in '{folder}' holds int64, and string in the files before it",
        ),
        ({"id": [2], "t": ["x"]}, "column 'id' of 'b.parquet' in '{folder}' holds int64, and string"),
        ({"id": ["b"], "t": [["x"]]}, "column 't' of 'b.parquet' in '{folder}' holds list<"),
        ({"id": ["b"], "T": ["x"]}, "no column 't' in 'b.parquet'"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_column(
    tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    part(tmp_path, "a.parquet", ["a"])
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    with pytest.raises(ConfigError) as error:
        source(str(tmp_path), COLUMNS)
    assert str(error.value).startswith(f"source.path: {message.format(folder=tmp_path)}")
    assert str(error.value).endswith("the same columns in all files, in types that fit each other")


def test_two_columns_of_one_name_in_a_later_file(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", ["a"])
    twice = pa.Table.from_arrays([pa.array(["b"])] * 3, names=["id", "t", "t"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"two columns 't' in 'b\.parquet'"):
        source(str(tmp_path), COLUMNS)


def test_a_value_that_the_common_type_cannot_hold(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", ["a"], n=pa.array([2**60 + 1]))
    part(tmp_path, "b.parquet", ["b"], n=pa.array([0.5]))
    with pytest.raises(
        ConfigError, match=r"'.*/a\.parquet' breaks off after row 0 \(ArrowInvalid: column 'n' is no double"
    ):
        listed(str(tmp_path), COLUMNS, passthrough=["n"])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a parquet file at all"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    part(tmp_path, "a.parquet", ["a"])
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"source\.path: cannot read 'b\.parquet' of .* as parquet"):
        source(str(tmp_path), COLUMNS)


def test_a_folder_without_parquet_files(tmp_path: Path, s3: Any) -> None:
    root = tmp_path / "list.parquet"
    part(root, "_temporary/x.parquet", ["a"])
    with pytest.raises(
        ConfigError, match=r"^source\.path: the folder '.*' holds no Parquet file; a table, or a folder"
    ):
        source(str(root), COLUMNS)
    (root / "a.csv").write_text("id,t\na,b\n")
    with pytest.raises(ConfigError, match="holds no Parquet file, but 1 of other names"):
        source(str(root), COLUMNS)
    with pytest.raises(ConfigError, match=r"source\.path: '.*' is a folder; a file of csv, or a folder of Parquet"):
        source(str(root), COLUMNS, format="csv")
    s3.pipe_file("corpus/in/x.txt", b"x")
    with pytest.raises(ConfigError, match="holds no Parquet file, but 1 of other names"):
        source("s3://corpus/in", COLUMNS)


def test_keys_of_folders_are_no_columns(folder: Path) -> None:
    for key in ("day", "hour"):
        with pytest.raises(ConfigError) as error:
            source(str(folder), COLUMNS, passthrough=[key])
        name = {"day": "day=1", "hour": "hour=3"}[key]
        assert str(error.value).startswith(
            f"source.passthrough: no column {key!r} in the files of the manifest: it is a key of folders ({name!r})"
        )
    with pytest.raises(ConfigError, match=r"no column 'dai' in the manifest; one of: 'id', 't'"):
        source(str(folder), COLUMNS, passthrough=["dai"])


def test_more_files_than_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        part(tmp_path, f"{name}.parquet", [name])
    monkeypatch.setattr(parquet, "MAX_LIST", 2)
    with pytest.raises(ConfigError, match="has too many files; at most 2"):
        source(str(tmp_path), COLUMNS)


# -- bad rows and ids that are there twice --------------------------------------------------------


def test_a_bad_row_is_named_by_its_file(tmp_path: Path) -> None:
    root = tmp_path / "list.parquet"
    part(root, "part-0.parquet", ["a", "b"])
    part(root, "day=1/part-0.parquet", ["c", None])
    found = listed(str(root), COLUMNS)
    bad = found["list.parquet#row 2 of day=1/part-0.parquet"]
    assert bad["refused"] == "row 2 of day=1/part-0.parquet of 'list.parquet' has no id"
    assert len(found) == 4


def test_an_id_in_two_files(tmp_path: Path) -> None:
    part(tmp_path, "p0.parquet", ["a", "b"])
    part(tmp_path, "p1.parquet", ["c", "b"])
    message = str(source(str(tmp_path), COLUMNS).duplicate_id_error("b"))
    assert message.startswith("source.columns.id: id 'b' is in row 2 of p0.parquet and in row 2 of p1.parquet;")


@pytest.mark.usefixtures("hasty")
def test_a_folder_on_a_place_that_stutters(tmp_path: Path) -> None:
    root = tmp_path / "m.parquet"
    part(root, "a.parquet", ["a"])
    part(root, "b.parquet", ["b"])
    faulty.plan(tmp_path, {"*": [faulty.Fault(op, "slow_down", times=1) for op in ("info", "list", "open", "read")]})
    assert set(listed(f"faulty://{root}", COLUMNS)) == {"a", "b"}
    faulty.plan(tmp_path, {"*b.parquet": faulty.Fault("read", "short", after=0)})
    with pytest.raises(ConfigError, match=r"source\.path: .*b\.parquet.*truncated read"):
        listed(f"faulty://{root}", COLUMNS)
    part(root, "day=1/c.parquet", ["c"])
    faulty.plan(tmp_path, {"*/day=1": faulty.Fault("list", "denied")})
    with pytest.raises(ConfigError, match=r"source\.path: cannot list .*Access Denied"):
        listed(f"faulty://{root}", COLUMNS)


def test_tables_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_ROWS", 10)
    for name in "ab":
        part(tmp_path, f"{name}.parquet", [f"{name}{i}" for i in range(25)])
    assert [len(table) for table in source(str(tmp_path), COLUMNS).list()] == [10, 10, 5, 10, 10, 5]


def test_names_of_parts_are_shown_whatever_they_are(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "in")
    pq.write_table(pa.table({"id": [None, "a"], "t": ["x", "y"]}), tmp_path / "in" / "x.parquet")
    os.rename(tmp_path / "in" / "x.parquet", os.path.join(os.fsencode(tmp_path / "in"), b"x\xff\x1b.parquet"))
    found = listed(str(tmp_path / "in"), COLUMNS)
    (bad,) = (row for row in found.values() if row["refused"])
    assert bad["refused"] == r"row 1 of x%FF\x1b.parquet of 'in' has no id"
    assert bad["sample_id"] == r"in#row 1 of x%FF\x1b.parquet"


def test_config_of_a_folder_needs_no_key() -> None:
    config = Config(path="x.parquet/", columns=COLUMNS)
    assert UriResolver(config).root[0] == os.getcwd()
    assert parquet_folder_files._EXTENSIONS == (".parquet", ".pq")
    assert thrift.ZSTD
