"""Publishing is all or nothing, a commit is exclusive, and errors name the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import ConfigError, SampleError
from pipeline.storage import Blob


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path)
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket"


def test_publish_then_read_and_list(root: str) -> None:
    storage.publish(storage.join(root, "a", "x.json"), b"1")
    storage.publish(storage.join(root, "a", "x.json"), b"22")
    assert storage.read_bytes(storage.join(root, "a", "x.json")) == b"22"
    assert storage.list_files(storage.join(root, "a")) == ["x.json"]
    assert storage.list_files(storage.join(root, "nowhere")) == []


def test_commit_is_exclusive(root: str) -> None:
    url = storage.join(root, "s", "1.json")
    assert storage.publish_new(url, b"first")
    assert not storage.publish_new(url, b"second")
    assert storage.read_bytes(url) == b"first"


def test_one_of_many_racing_commits_wins(tmp_path) -> None:
    wins: list[int] = []
    url = str(tmp_path / "s" / "1.json")
    threads = [
        threading.Thread(target=lambda n=n: storage.publish_new(url, b"%d" % n) and wins.append(n)) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert storage.read_bytes(url) == b"%d" % wins[0]
    assert os.listdir(tmp_path / "s") == ["1.json"]


def test_a_write_that_breaks_off_leaves_nothing(tmp_path) -> None:
    def broken() -> None:
        with storage.publishing(str(tmp_path / "f")) as file:
            file.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert os.listdir(tmp_path) == []


def test_blob(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    blob = Blob(str(tmp_path / "a"))
    assert (blob.read(), blob.read(2), blob.size(), blob.local_path()) == (b"hello", b"he", 5, str(tmp_path / "a"))
    with blob.open() as file:
        file.seek(3)
        assert file.read() == b"lo"
    with pytest.raises(SampleError, match=r"missing: .*/b"):
        Blob(str(tmp_path / "b")).read()
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        for read in (Blob(str(endless)).read, Blob(str(endless)).size, Blob(str(endless)).open):
            with pytest.raises(SampleError, match="unsupported: not a regular file"):
                read()


def test_check_readable(tmp_path) -> None:
    storage.check_readable(str(tmp_path), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        storage.check_readable(str(tmp_path / "no"), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: cannot reach"):
        storage.check_readable("nosuchscheme://x/y", "source.path")


def test_check_writable(tmp_path) -> None:
    storage.check_writable(str(tmp_path / "new" / "folder"), "output.path")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "file" / "below"), "/proc/nowhere", "nosuchscheme://x/y"):
        with pytest.raises(ConfigError, match=r"output\.path: cannot write to"):
            storage.check_writable(place, "output.path")
