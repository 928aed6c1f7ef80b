"""A folder of Parquet files that holds links, pipes, bombs and files that change."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import ConfigError
from tests.sources import test_hostile_manifest as hostile
from tests.sources.manifest_parts import COLUMNS, part, places
from tests.sources.test_manifest import listed, source

# -- somebody else's folder -----------------------------------------------------------------------


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    part(tmp_path / "outside", "secret.parquet", ["secret"])
    root = tmp_path / "in"
    part(root, "a.parquet", ["a"])
    (root / "b.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    with pytest.raises(ConfigError, match=r"cannot read 'b\.parquet' of .*forbidden: .* leads to .*outside of what"):
        source(str(root), COLUMNS)
    (root / "b.parquet").unlink()
    (root / "more").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match=r"source\.path: '.*/in/more' is a link that leads out of the manifest"):
        source(str(root), COLUMNS)
    (root / "more").unlink()
    (root / "_more").symlink_to(tmp_path / "outside")
    assert set(listed(str(root), COLUMNS)) == {"a"}


def test_links_inside_the_folder_are_read(tmp_path: Path) -> None:
    """As a cluster mounts files: each is a link into a hidden folder next to it."""
    root = tmp_path / "in"
    part(root, "..data/a.parquet", ["a"])
    part(root, "..data/day=1/b.parquet", ["b"])
    (root / "a.parquet").symlink_to("..data/a.parquet")
    (root / "day=1").symlink_to("..data/day=1")
    for name, target in (("round", root), ("itself", "."), ("gone", "nothing")):
        (root / "..data" / "day=1" / name).symlink_to(target)
    (tmp_path / "link").symlink_to(root)
    for path in (root, tmp_path / "link"):
        assert places(source(str(path), COLUMNS)) == {"a": "row 1 of a.parquet", "b": "row 1 of day=1/b.parquet"}


def test_a_swap_for_a_link_after_the_listing_reads_nothing_else(tmp_path: Path) -> None:
    part(tmp_path / "outside", "secret.parquet", ["secret"])
    root = tmp_path / "in"
    part(root, "a.parquet", ["a"])
    made = source(str(root), COLUMNS)
    (root / "a.parquet").unlink()
    (root / "a.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    with pytest.raises(ConfigError, match="outside of what"):
        list(made.list())


def test_a_file_that_loses_a_column_after_it_was_checked(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", ["a"])
    made = source(str(tmp_path), COLUMNS)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"no column 't' in 'a\.parquet' .* any more"):
        list(made.list())


@pytest.mark.timeout(60)
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", ["a"])
    os.mkfifo(tmp_path / "pipe")
    assert set(listed(str(tmp_path), COLUMNS)) == {"a"}
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"cannot read 'b\.parquet' .*not a regular file"):
        source(str(tmp_path), COLUMNS)


def test_no_file_stays_open(tmp_path: Path) -> None:
    for number in range(300):
        part(tmp_path, f"{number:03}.parquet", [f"{number}"])
    before = len(os.listdir("/proc/self/fd"))
    made = source(str(tmp_path), COLUMNS)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert len(pa.concat_tables(made.list())) == 300
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_the_bounds_of_a_file_are_those_of_a_folder(tmp_path: Path) -> None:
    for name in "abcd":
        rows = [f"{name}{i}" for i in range(25)]
        part(tmp_path, f"{name}.parquet", rows)
    taken = sum(len(f"{name}{i}words {name}{i}") for name in "abcd" for i in range(25))
    assert len(listed(str(tmp_path), COLUMNS, max_bytes=taken)) == 100
    with pytest.raises(ConfigError, match=rf"more than {taken - 1} bytes.*; give source.max_bytes if"):
        listed(str(tmp_path), COLUMNS, max_bytes=taken - 1)
    assert len(listed(str(tmp_path), COLUMNS, max_cell_bytes=9)) == 100
    with pytest.raises(ConfigError, match=r"a value of 't' from row 1 on in '.*/a\.parquet' has 9 bytes"):
        listed(str(tmp_path), COLUMNS, max_cell_bytes=8)


@pytest.mark.parametrize(
    "name", ["a page that the footer does not tell of", "a list of nulls", "bytes that are not there"]
)
def test_a_bomb_in_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    make, why, options = hostile.BOMBS[name]
    (tmp_path / "a.parquet").write_bytes(make())
    columns = {"id": "id", "image": "id"} if options else COLUMNS
    with pytest.raises(ConfigError, match=why):
        listed(str(tmp_path), columns, **options)


def test_an_extension_type_of_a_folder_is_its_storage(tmp_path: Path) -> None:
    importlib.import_module("ray.data")  # registers types of columns whose values unpickle

    kind = pa.field(
        "top",
        pa.binary(),
        metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": ""},
    )
    for name in "ab":
        columns = [pa.array([name]), pa.array(["w"]), pa.array([b"not a pickle"])]
        schema = pa.schema([("id", pa.string()), ("t", pa.string()), kind])
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), tmp_path / f"{name}.parquet")
    found = listed(str(tmp_path), COLUMNS, passthrough=["top"])
    assert {row["top"] for row in found.values()} == {b"not a pickle"}
