"""URLs and paths: the file system of each, and the path on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.storage import urls


def test_local_paths_and_urls(tmp_path: Path) -> None:
    for url in (str(tmp_path / "a.png"), f"file://{tmp_path}/a.png"):
        fs, path = urls.split(url)
        assert isinstance(fs, LocalFileSystem)
        assert path == str(tmp_path / "a.png")
        assert urls.is_local(url)
    fs, path = urls.split("memory://folder/a.png")
    assert isinstance(fs, MemoryFileSystem)
    assert path == "/folder/a.png"
    assert urls.in_one_process("memory://folder")
    assert not urls.is_local("memory://folder")
    assert not urls.in_one_process(str(tmp_path))


@pytest.mark.parametrize("name", ["a::b.png", "zip::x", "x::s3://bucket/key"])
def test_two_colons_in_a_name_chain_no_file_systems(tmp_path: Path, name: str) -> None:
    """fsspec would treat the text after them as another URL, whose scheme may not be allowed."""
    fs, path = urls.split(f"{tmp_path}/{name}")
    assert isinstance(fs, LocalFileSystem)
    assert path == f"{tmp_path}/{name}"


def test_a_name_that_is_not_utf8_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"/caf\xe9/\xff.png")
    uri = urls.local_uri(name)
    assert uri.isascii()
    assert urls.split(uri)[1] == name
    assert urls.local_uri("/café.png") == "/café.png"


def test_joined_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert urls.absolute("out") == str(tmp_path / "out")
    assert urls.absolute("s3://bucket/out") == "s3://bucket/out"
    assert urls.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
