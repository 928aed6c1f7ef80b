"""Files of a dataset are accessed below its folder, and on a local disk without following symbolic links."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import StorageError
from pipeline.dataset.commit.folder import DatasetFolder, check_version
from pipeline.storage.local_files import RefusedFile
from tests.support import ROOT

WRITERS = (*(ROOT / "pipeline" / "dataset").rglob("*.py"), *(ROOT / "pipeline" / "run").glob("*.py"))
"""Modules that read or change a dataset. `checks` also lists folders that are no dataset yet, for ``output.path``."""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def used(folder: DatasetFolder) -> None:
    """Calls every method."""
    folder.publish("a/x", b"1")
    assert folder.publish_new("a/y", b"2")
    with folder.atomic_file("a/z") as file:
        file.write(b"3")
    assert folder.list_files("a") == ["x", "y", "z"]
    assert folder.list_files("a", "z") == ["z"]
    assert folder.list_folders("") == ["a"]
    assert folder.list_files("none") == folder.list_folders("none") == []
    assert [folder.read(f"a/{name}") for name in "xyz"] == [b"1", b"2", b"3"]
    assert folder.size("a/x") == 1
    folder.move("a/x", "b/x")
    folder.move("a/x", "b/x")  # has been moved already
    assert (folder.exists("a/x"), folder.exists("b/x")) == (False, True)
    assert folder.open("b/x", lambda fs, path: fs.cat_file(path)) == b"1"
    folder.remove("a/y")
    folder.remove("a/y")
    assert folder.list_files("a") == ["z"]
    folder.remove_empty_folder("a")
    folder.remove_empty_folder("none")
    assert folder.list_files("a") == ["z"]
    folder.remove_folder("a")
    folder.remove_folder("a")
    assert folder.list_folders("") == ["b"]
    with pytest.raises(FileNotFoundError):
        folder.read("a/z")
    with pytest.raises(StorageError, match="has more than 0 bytes"):
        folder.read("b/x", 0)


def test_a_local_folder(tmp_path: Path) -> None:
    used(DatasetFolder(str(tmp_path / "new")))
    assert tree(tmp_path / "new") == {"b/x": b"1"}
    (tmp_path / "alias").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    used(DatasetFolder(f"{tmp_path}/alias"))
    used(DatasetFolder(f"file://{tmp_path}/by-url"))


def test_it_creates_once(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    assert folder.publish_new("a/x", b"1")
    assert not folder.publish_new("a/x", b"2")
    assert tree(tmp_path) == {"a/x": b"1"}


def test_an_object_store(s3: Any) -> None:
    used(DatasetFolder("s3://corpus/out/v1"))
    assert s3.find("corpus") == ["corpus/out/v1/b/x"]


def test_memory() -> None:
    used(DatasetFolder("memory://folder-test/v1"))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    root.mkdir()
    home.mkdir()
    (home / "key").write_text("secret")
    (root / "data").symlink_to(home)
    folder = DatasetFolder(str(root))
    for write in (
        lambda: folder.publish("data/key", b"x"),
        lambda: folder.publish("data/sub/key", b"x"),
        lambda: folder.publish_new("data/new", b"x"),
        lambda: folder.atomic_file("data/new").__enter__(),
    ):
        with pytest.raises(StorageError, match=r"'.*/root/data' is a symbolic link, which is never followed"):
            write()
    assert tree(home) == {"key": b"secret"}
    assert os.listdir(home) == ["key"]


def test_a_file_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    root, key = tmp_path / "root", tmp_path / "key"
    root.mkdir()
    key.write_text("secret")
    (root / "x").symlink_to(key)
    DatasetFolder(str(root)).publish("x", b"new")
    assert not DatasetFolder(str(root)).publish_new("x", b"newer")
    assert (key.read_text(), (root / "x").read_text(), (root / "x").is_symlink()) == ("secret", "new", False)


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    folder = DatasetFolder(str(tmp_path))
    broken = folder.atomic_file("a/x")
    broken.__enter__().write(b"half")
    broken.__exit__(RuntimeError, RuntimeError(), None)
    assert tree(tmp_path) == {}


def test_the_folder_of_a_version_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").symlink_to(tmp_path / "v1")
    assert check_version(str(tmp_path), "v1") == f"{tmp_path}/v1"
    assert check_version(str(tmp_path), "v3") == f"{tmp_path}/v3"
    assert check_version("s3://bucket/out", "v1") == "s3://bucket/out/v1"
    with pytest.raises(StorageError, match="v2' is a symbolic link"):
        check_version(str(tmp_path), "v2")


def test_a_dataset_is_changed_only_through_its_folder() -> None:
    """Other functions would follow a symbolic link."""
    doors = {
        "remove",
        "remove_folder",
        "move",
        "publish",
        "publish_new",
        "AtomicFile",
        "read_bytes",
        "exists",
        "is_file",
        "entries",
    }
    doors |= {"list_files", "list_folders"}
    for path in WRITERS:
        if path.name in (
            "folder.py",
            "planning.py",
        ):  # itself; and one that writes below its run
            continue
        shut = doors - {"list_folders"} if path.name == "checks.py" else doors
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "storage":
                assert node.attr not in shut, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_a_shard_that_is_swapped_for_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root" / "data" / "a", tmp_path / "outside"
    inside.parent.mkdir(parents=True)
    inside.write_text("in")
    outside.write_text("out")
    (tmp_path / "go").touch()
    child = os.fork()
    if not child:
        while (tmp_path / "go").exists():
            os.symlink(outside, tmp_path / "next")
            os.rename(tmp_path / "next", inside)
            (tmp_path / "next").write_text("in")
            os.rename(tmp_path / "next", inside)
        os._exit(0)
    folder = DatasetFolder(str(tmp_path / "root"))
    read = refused = 0
    try:
        while read < 300 or refused < 300:
            try:
                found = folder.open("data/a", lambda _, path: Path(path).read_text())
            except RefusedFile:
                found = "refused"
            assert found in ("in", "refused")
            read, refused = read + (found == "in"), refused + (found == "refused")
    finally:
        (tmp_path / "go").unlink()
        os.waitpid(child, 0)
