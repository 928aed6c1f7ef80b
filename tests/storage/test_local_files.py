"""No operation follows a link below a folder; links to the folder itself and above it are followed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.storage import local_files
from pipeline.storage.local_files import RefusedFile

DOES: dict[str, Callable[[str, str], object]] = {
    "check": local_files.check,
    "read": lambda root, path: local_files.read(root, path, 100),
    "remove": local_files.remove,
    "remove_folder": local_files.remove_folder,
    "remove_empty_folder": local_files.remove_empty_folder,
    "move from": lambda root, path: local_files.move(root, path, "elsewhere/x"),
    "move to": lambda root, path: local_files.move(root, "own", path),
    "open_parent": lambda root, path: os.close(local_files.open_parent(root, path, make=True)),
}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Returns a folder with a link in it, ``in/link -> home``; and ``home``, which holds a file."""
    root, home = tmp_path / "root", tmp_path / "home"
    (root / "in").mkdir(parents=True)
    (root / "own").write_text("own")
    (home / "sub").mkdir(parents=True)
    (home / "key").write_text("secret")
    (root / "in" / "link").symlink_to(home)
    (root / "in" / "file").symlink_to(home / "key")
    return root, home


def inside(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", DOES)
@pytest.mark.parametrize("path", ["in/link/key", "in/link/sub/new"])
def test_a_link_on_the_way_is_refused(places: tuple[Path, Path], what: str, path: str) -> None:
    root, home = places
    with pytest.raises(RefusedFile, match=r"'.*/root/in/link' is a symbolic link"):
        DOES[what](str(root), path)
    assert inside(home) == {"key": "secret"}
    assert (root / "own").read_text() == "own"


@pytest.mark.parametrize("what", ["check", "read", "move from"])
@pytest.mark.parametrize("path", ["in/file", "in/link"])
def test_a_link_at_the_end_is_refused(places: tuple[Path, Path], what: str, path: str) -> None:
    root, home = places
    with pytest.raises(RefusedFile, match="is a symbolic link"):
        DOES[what](str(root), path)
    assert inside(home) == {"key": "secret"}


def test_a_link_itself_can_be_removed_and_replaced(places: tuple[Path, Path]) -> None:
    root, home = places
    local_files.move(str(root), "own", "in/file")
    assert (root / "in" / "file").read_text() == "own"
    local_files.remove(str(root), "in/link")
    assert not (root / "in" / "link").is_symlink()
    (root / "in" / "link").symlink_to(home)
    local_files.remove_folder(str(root), "in/link")
    assert not (root / "in" / "link").is_symlink()
    assert inside(home) == {"key": "secret"}


def test_only_an_empty_folder_is_removed_as_such(places: tuple[Path, Path]) -> None:
    root, home = places
    for path in ("in", "in/link", "own"):
        local_files.remove_empty_folder(str(root), path)
    assert sorted(os.listdir(root)) == ["in", "own"]
    assert (root / "in" / "link").is_symlink()
    (root / "empty").mkdir()
    local_files.remove_empty_folder(str(root), "empty")
    assert not (root / "empty").exists()
    assert inside(home) == {"key": "secret"}


def test_a_folder_goes_with_the_links_in_it_but_not_with_what_they_point_to(places: tuple[Path, Path]) -> None:
    root, home = places
    local_files.remove_folder(str(root), "in")
    assert os.listdir(root) == ["own"]
    assert inside(home) == {"key": "secret"}


def deep(folder: Path, levels: int) -> None:
    """Nested folders, each with a file, whose path is longer than the system allows."""
    held = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 20, dir_fd=held)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=held))
        os.symlink("file", "link", dir_fd=held)
    os.close(held)


def test_a_tree_that_has_no_paths_is_removed(places: tuple[Path, Path]) -> None:
    root, home = places
    deep(root / "in", 3000)
    os.mkfifo(root / "in" / "pipe")
    local_files.remove_folder(str(root), "in")
    assert os.listdir(root) == ["own"]
    assert inside(home) == {"key": "secret"}


@pytest.mark.parametrize("what", DOES)
@pytest.mark.parametrize("path", ["../home/key", "in/../../home/key", "", ".", "in//x", "/etc/passwd", "a\0b"])
def test_a_path_stays_below(places: tuple[Path, Path], what: str, path: str) -> None:
    root, home = places
    with pytest.raises(RefusedFile, match="is not a path below"):
        DOES[what](str(root), path)
    assert inside(home) == {"key": "secret"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["check", "read", "move from"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        os.mkfifo("x") if kind == "pipe" else bound.bind("x")
        with pytest.raises(RefusedFile, match="x' is not a regular file"):
            DOES[what](str(tmp_path), "x")


def test_the_folder_and_those_above_it_may_be_links(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, _ = places
    (tmp_path / "alias").symlink_to(root)
    assert local_files.read(f"{tmp_path}/alias", "own", 100) == b"own"
    assert sorted(local_files.entries(f"{tmp_path}/alias")) == [("in", True), ("own", False)]
    assert sorted(local_files.entries(f"{tmp_path}/alias", "in")) == [("file", False), ("link", False)]
    with pytest.raises(RefusedFile, match="is a symbolic link"):
        local_files.entries(str(root), "in/link")


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert local_files.read(str(tmp_path), "x", 5) == b"12345"
    with pytest.raises(RefusedFile, match="has more than 4 bytes"):
        local_files.read(str(tmp_path), "x", 4)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(RefusedFile, match="has more than 1000 bytes"):
        local_files.read(str(tmp_path), "huge", 1000)


def test_missing_is_missing(tmp_path: Path) -> None:
    for what in ("check", "read", "remove", "remove_folder", "move from"):
        with pytest.raises(FileNotFoundError):
            DOES[what](str(tmp_path), "no/where")
    with pytest.raises(FileNotFoundError):
        local_files.entries(str(tmp_path), "no")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        local_files.entries(str(tmp_path), "file")


def test_no_descriptor_is_left_open(places: tuple[Path, Path]) -> None:
    root, _ = places
    before = len(os.listdir("/proc/self/fd"))
    for what in DOES:
        for path in ("in/link/key", "no/where", "own"):
            try:
                DOES[what](str(root), path)
            except OSError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
