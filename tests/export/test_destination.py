"""Where exports may be written, on this machine and on an object store."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import dataset, export
from pipeline.core.errors import ConfigError, StorageError
from pipeline.export import FORMATS, ShardLimits
from pipeline.export.destination import Destination
from tests.export import exported
from tests.export.exported import READERS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported.write(tmp_path_factory.mktemp("data") / "ds", 20)


def _refused(path: str, out: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Destination(out, dataset.open(path), path)
    return str(caught.value)


def test_not_in_the_dataset(path: str, tmp_path: Path) -> None:
    """Plain readers would find the files among those of the dataset, or list them as a version."""
    (tmp_path / "link").symlink_to(path)
    for out in (f"{path}/new", f"{path}/v1/new", f"{path}/v1", path, f"{path}/v1/../x", f"{tmp_path}/link/new"):
        assert _refused(path, out) == f"OUT: {out!r} is in the dataset; a folder outside of it"
    assert "is in the dataset" in _refused(f"{path}/v1", f"{path}/v1/data/x")
    Destination(f"{path}-2", dataset.open(path), path)


def test_what_is_no_folder_that_can_be_replaced(path: str, tmp_path: Path) -> None:
    assert _refused(path, "/proc") == "OUT: '/proc' is where a file system is mounted; a new folder in it"
    assert "without '::'" in _refused(path, "simplecache::memory://x")
    assert "without '::'" in _refused(path, str(tmp_path / "a::b"))
    os.mkfifo(tmp_path / "pipe")
    assert "is no folder" in _refused(path, str(tmp_path / "pipe"))


@pytest.mark.parametrize("format", FORMATS)
def test_urls_that_nothing_opens(path: str, format: Any) -> None:
    for out, words in (("", "found ''"), ("nope://x/y", "Protocol not known: nope"), ("gs://b/x", "gcsfs")):
        with pytest.raises(ConfigError, match=f"OUT: .*{words}"):
            export.export_dataset(path, out, format)


def test_a_link_to_an_empty_folder_stays_a_link(path: str, tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/real")
    export.export_dataset(path, str(tmp_path / "link"), "webdataset", ["number"])
    assert (tmp_path / "link").is_symlink()
    assert len(exported.samples(str(tmp_path / "disk" / "real"))) == 20
    assert [one.name for one in (tmp_path / "disk").iterdir()] == ["real"]


def test_an_output_that_cannot_be_written(path: str) -> None:
    with pytest.raises(ConfigError, match="OUT: cannot write to '/proc/self/none/out' "):
        export.export_dataset(path, "/proc/self/none/out", "webdataset")


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_takes_no_more(path: str, tmp_path: Path, format: Any) -> None:
    """The process may write files of a limited size only, and each format writes a larger one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            export.export_dataset(path, str(tmp_path / "out"), format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_to_memory(path: str) -> None:
    fs = fsspec.filesystem("memory")
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.export_dataset(path, "memory://dest/part", "webdataset", limits=ShardLimits(5), report=stop)
    left = json.loads(fs.cat_file("/dest/part/.tessera-export.json"))
    assert left["complete"] is False
    with pytest.raises(ConfigError, match="holds an export that was interrupted or is being written"):
        export.export_dataset(path, "memory://dest/part", "webdataset")
    export.export_dataset(path, "memory://dest/whole", "datasets")
    assert json.loads(fs.cat_file("/dest/whole/.tessera-export.json"))["complete"] is True
    with pytest.raises(ConfigError, match="is not empty"):
        export.export_dataset(path, "memory://dest/whole", "datasets")
    fs.pipe_file("/dest/file", b"precious")
    with pytest.raises(ConfigError, match=r"is no folder|is not empty"):
        export.export_dataset(path, "memory://dest/file", "datasets")
    fs.rm("/dest", recursive=True)


def test_two_exports_into_one_place(path: str) -> None:
    """The second one began before the first one wrote anything."""
    data = dataset.open(path)
    with Destination("memory://two/out", data, path) as first, Destination("memory://two/out", data, path) as second:
        first.begin("lance", ["number"])
        with pytest.raises(ConfigError, match="another export writes to 'memory://two/out'"):
            second.begin("lance", ["number"])
    fsspec.filesystem("memory").rm("/two", recursive=True)


@pytest.mark.parametrize("format", FORMATS)
def test_s3(path: str, tmp_path: Path, s3: Any, format: Any) -> None:
    done = export.export_dataset(path, "s3://corpus/some/out", format, limits=ShardLimits(8))
    s3.invalidate_cache()
    s3.get("corpus/some/out", str(tmp_path / "copy"), recursive=True)
    assert READERS[format](str(tmp_path / "copy")) == exported.stored(path)
    assert exported.record(str(tmp_path / "copy"))["complete"] is True
    files = [one for one in (tmp_path / "copy").rglob("*") if one.is_file() and one.name != ".tessera-export.json"]
    assert (done.files, done.bytes) == (len(files), sum(one.stat().st_size for one in files))
    with pytest.raises(ConfigError, match="OUT: 's3://corpus/some/out' is not empty"):
        export.export_dataset(path, "s3://corpus/some/out", format)
    with pytest.raises(ConfigError, match=r"OUT: cannot write to 's3://no-such/out'|OUT: cannot"):
        export.export_dataset(path, "s3://no-such/out", format)
