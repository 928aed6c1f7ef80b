"""Files that cannot be samples are counted by their reason."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.files import Config, FilesSource
from tests.sources.listing import make

# -- what is left out -----------------------------------------------------------------------------

KEYS = {
    "ok.txt": b"x",
    "a//named.txt": b"x",
    "./a.txt": b"x",
    "a/./b.txt": b"x",
    "a/../c.txt": b"x",
    "../d.txt": b"x",
    "x/./y/../z.txt": b"x",
    "folder/": b"",
    "bytes/": b"x",
    "q//": b"x",
    ".hidden.txt": b"x",
    "a/.hidden/e.txt": b"x",
    "README.md": b"x",
}


DOT, UP, EMPTY = "with '.' in their path", "with '..' in their path", "with an empty name in their path"


SLASH = "with '/' at the end of their name"


HIDDEN = "whose name, or their folder's, begins with a dot"


FOLDER = "empty, with '/' at the end of their name (folder markers)"


@pytest.mark.parametrize(
    ("options", "ids", "left_out"),
    [
        ({}, {"ok.txt", "a//named.txt"}, {DOT: 2, UP: 3, SLASH: 2, FOLDER: 1, HIDDEN: 2}),
        ({"include": ["**/*.txt"]}, {"ok.txt"}, {DOT: 2, UP: 3, EMPTY: 1, HIDDEN: 2}),
        ({"include": ["ok.txt", "a/*"]}, {"ok.txt"}, {DOT: 1, UP: 1, EMPTY: 1, HIDDEN: 1}),
        ({"include": ["ok.*"]}, {"ok.txt"}, {}),
        ({"path": "s3://corpus/in/ok.txt"}, {"ok.txt"}, {}),
        (
            {"exclude": []},
            {*KEYS} - {"folder/", "bytes/", "q//"},
            {SLASH: 2, FOLDER: 1},
        ),
    ],
)
def test_keys_that_cannot_be_samples_are_counted(
    s3: Any, options: dict[str, Any], ids: set[str], left_out: dict[str, int]
) -> None:
    """Every key is listed, counted, or excluded by a pattern."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for key, data in KEYS.items():  # s3fs would change some of the names
        client.put_object(Bucket="corpus", Key=f"in/{key}", Body=data)
    source = FilesSource(Config(**{"path": "s3://corpus/in", **options}))
    source.check("source")
    for _ in range(2):  # a listing counts its own files only
        assert {one for table in source.list() for one in table["sample_id"].to_pylist()} == ids
        assert source.left_out == left_out


def test_pipes_and_sockets_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "sub/b.txt")
    for name in ("pipe.txt", "sub/pipe.bin", ".hidden"):
        os.mkfifo(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "socket"))
    source = FilesSource(Config(path=str(tmp_path)))
    assert sum(map(len, source.list())) == 2
    assert source.left_out == {"that are pipes, sockets or devices": 3, HIDDEN: 1}
    source = FilesSource(Config(path=str(tmp_path), include=("**/*.txt",)))
    assert sum(map(len, source.list())) == 2
    assert source.left_out == {"that are pipes, sockets or devices": 1}


def test_a_local_folder_with_dots_in_its_names_leaves_nothing_out(tmp_path: Path) -> None:
    make(tmp_path, "a..b/c.txt", "d./e.txt", "...f/g.txt")
    source = FilesSource(Config(path=str(tmp_path)))
    assert {one for table in source.list() for one in table["sample_id"].to_pylist()} == {"a..b/c.txt", "d./e.txt"}
    assert source.left_out == {HIDDEN: 1}, "the folder ...f"


@pytest.mark.parametrize("place", ["local", "s3"])
def test_hidden_files_are_counted(s3: Any, tmp_path: Path, place: str) -> None:
    """A hidden folder counts as one file. Files that the user excludes, or that no pattern includes, do not count."""
    make(tmp_path, "a.txt", ".b.txt", "sub/.c.png", ".git/d.txt", ".git/e.txt", "sub/f.txt")
    s3.put(f"{tmp_path}/", "corpus/hidden/", recursive=True)
    path = str(tmp_path) if place == "local" else "s3://corpus/hidden"
    for options, count in (({}, 3), ({"include": ["**/*.txt"]}, 2), ({"exclude": ["**/.*", "**/.*/**"]}, 0)):
        source = FilesSource(Config(path=path, **options))
        assert sum(map(len, source.list())) == 2
        assert source.left_out == ({HIDDEN: count} if count else {})
