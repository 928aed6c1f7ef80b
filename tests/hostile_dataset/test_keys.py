"""Datasets on object stores, where a key may be any text: a pattern, a folder that is a file too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from pipeline import dataset, storage
from pipeline.core.errors import StorageError
from pipeline.dataset import maintenance
from tests.support.dataset_fixtures import RUNS, ids, night

RUN = RUNS[5]


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A file system, and a URL of it with nothing below."""
    if request.param == "s3":
        yield request.getfixturevalue("s3"), "s3://corpus/place"
        return
    fs = fsspec.filesystem("memory")
    yield fs, "memory://place"
    fs.rm("/", recursive=True)


def _put(fs: Any, url: str, data: bytes = b"precious") -> str:
    path = str(storage.split(url)[1])
    fs.pipe_file(path, data)
    return path


def _gone(fs: Any, paths: set[str]) -> set[str]:
    fs.invalidate_cache()
    return {path for path in paths if not fs.isfile(path)}


def test_a_folder_whose_name_is_a_pattern_is_only_itself(place: tuple[Any, str]) -> None:
    fs, url = place
    night(f"{url}/v1", RUNS[1], ["a", "b"])
    others = {_put(fs, f"{url}/{name}/_runs/{RUN}/pending/data/{RUN}-000000-000.parquet") for name in ("v1", "v2x")}
    _put(fs, f"{url}/*/_running/{RUN}.json", json.dumps({"base": 0, "identity": "x"}).encode())
    maintenance.forget(url, ["zzz"])
    assert not _gone(fs, others)


def test_a_place_whose_name_is_a_pattern_is_only_itself(place: tuple[Any, str]) -> None:
    fs, url = place
    own = f"{url}[1]"
    night(f"{own}/v1", RUNS[1], ["a", "b", "c"])
    night(f"{own}/v1", RUNS[2], ["d"])
    neighbour = _put(fs, f"{url}1/v1/_runs/{RUN}/pending/data/x.parquet")
    leftover = _put(fs, f"{own}/v1/_runs/{RUN}/pending/data/x.parquet")
    maintenance.compact(own)
    maintenance.forget(own, ["b"])
    maintenance.vacuum(own, 0)
    assert _gone(fs, {neighbour, leftover}) == {leftover}
    assert ids(own) == ["a", "c", "d"]


@pytest.mark.parametrize("where", ["data", "_superseded/data"])
def test_a_shard_that_is_a_folder_too_is_moved_like_any_other(s3: Any, where: str) -> None:
    url = "s3://corpus/place"
    for run, samples in ((RUNS[1], ["a", "b"]), (RUNS[2], ["c"])):
        night(f"{url}/v1", run, samples)
    for shard in s3.find("corpus/place/v1/data"):
        s3.pipe_file(f"{shard.replace('/data/', f'/{where}/')}/x", b"1")
    maintenance.compact(url)
    assert ids(url) == ["a", "b", "c"]
    maintenance.rollback(url, 2)
    assert ids(url) == ["a", "b", "c"]
    assert dataset.open(url).num_rows == 3


def test_a_file_that_grew_since_it_was_listed_is_not_read(s3: Any) -> None:
    path = _put(s3, "s3://corpus/place/small.json", b"{}")
    fs, _ = storage.split("s3://corpus/place")
    assert [one["size"] for one in fs.ls("corpus/place", detail=True)] == [2]
    other = type(s3)(skip_instance_cache=True)
    other.pipe_file(path, b"x" * 5000)
    assert fs.info(path)["size"] == 2, "it is the listing's"
    with pytest.raises(StorageError, match="has more than 1000 bytes"):
        storage.read_bytes("s3://corpus/place/small.json", 1000)


def test_a_file_that_is_replaced_while_it_is_read_is_whole(
    place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease is written again at every heartbeat, and may have a digit more."""
    fs, url = place
    path = _put(fs, f"{url}/lease.json", b"short")
    whole = fs.info

    def info(asked: str, **options: Any) -> Any:
        found = dict(whole(asked, **options))
        fs.pipe_file(path, b"a bit longer")
        return found

    monkeypatch.setattr(fs, "info", info)
    assert storage.read_bytes(f"{url}/lease.json", 1000) == b"a bit longer"


def test_reading_whole_files(place: tuple[Any, str]) -> None:
    fs, url = place
    _put(fs, f"{url}/some.json", b"x" * 5000)
    _put(fs, f"{url}/empty.json", b"")
    assert len(storage.read_bytes(f"{url}/some.json", 5000)) == 5000
    with pytest.raises(StorageError, match="has more than 4999 bytes"):
        storage.read_bytes(f"{url}/some.json", 4999)
    assert storage.read_bytes(f"{url}/empty.json", 1000) == b""
    for missing in (url, f"{url}/none.json"):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(missing, 1000)
