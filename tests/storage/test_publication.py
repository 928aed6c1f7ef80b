"""Files appear complete or not at all, and once."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pipeline import storage
from pipeline.core.errors import StorageError
from tests.storage.test_files import WRITES, _shard
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_proxy import FaultyProxy


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
        with storage.AtomicFile(str(tmp_path / "f")) as file:
            file.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("hasty")
def test_a_commit_whose_answer_is_lost_is_ours_still(tmp_path: Path) -> None:
    faulty.plan(tmp_path, {"s": Fault("create", "lost", times=1)})
    assert storage.publish_new(f"faulty://{tmp_path}/s", b"run 1")
    assert not storage.publish_new(f"faulty://{tmp_path}/s", b"run 2")
    assert (tmp_path / "s").read_bytes() == b"run 1"


@pytest.mark.usefixtures("hasty")
def test_a_commit_that_another_won_while_ours_failed_is_not_ours(tmp_path: Path) -> None:
    faulty.plan(tmp_path, {"s": Fault("create", "timeout", times=1)})
    (tmp_path / "s").write_bytes(b"another's")
    assert not storage.publish_new(f"faulty://{tmp_path}/s", b"mine")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("full", "it is full"),
        ("quota", "it is full"),
        ("denied", "access is denied"),
        ("denied_s3", "access is denied"),
    ],
)
def test_a_place_that_cannot_be_written_ends_it_in_one_line(tmp_path: Path, write: str, error: str, words: str) -> None:
    (tmp_path / "d").mkdir()
    url = f"faulty://{tmp_path}/d/f"
    after = 1000 if error in ("full", "quota") else 0
    faulty.plan(tmp_path, {"d/*": [Fault("write", error, after=after), Fault("create", error, after=after)]})
    with pytest.raises(StorageError, match=f"cannot write '{url}': {words}") as caught:
        WRITES[write](url)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert os.listdir(tmp_path / "d") == []
    assert faulty.calls(tmp_path, "create" if write == "publish_new" else "write", "d/f") == 1
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("f.") and name.endswith(".tmp")]


def test_what_the_writer_itself_raises_is_its_own(tmp_path: Path) -> None:
    def broken() -> None:
        with storage.AtomicFile(f"faulty://{tmp_path}/f") as file:
            file.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_ends_it_in_one_line(small_disk: Path) -> None:
    for write in (
        lambda: storage.publish(str(small_disk / "d" / "f"), b"x" * (2 << 20)),
        lambda: storage.publish_new(str(small_disk / "d" / "f"), b"x" * (2 << 20)),
        lambda: _shard(small_disk / "d" / "f.parquet"),
    ):
        with pytest.raises(StorageError, match=r"cannot write '.*': it is full \(OSError: \[Errno 28\]"):
            write()
        assert os.listdir(small_disk / "d") == []


def test_an_upload_whose_temporary_disk_is_full_says_so(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        pytest.raises(StorageError, match=f"cannot write '{small_disk}/f.*': it is full"),
        storage.AtomicFile(f"faulty://{tmp_path}/f") as file,
    ):
        file.write(b"x" * (3 << 20))
    assert os.listdir(small_disk) == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("attempts", ["1", "3"])
def test_an_s3_commit_whose_answer_is_lost_is_ours_still(
    proxied: FaultyProxy, attempts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated request, by Tessera or by botocore, finds the file that the first request created."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    s3fs.S3FileSystem.clear_instance_cache()
    proxied.plan("PUT", "lost", 1)
    assert storage.publish_new("s3://corpus/s/1", b"run 1")
    assert proxied.left("PUT") == 0
    assert not storage.publish_new("s3://corpus/s/1", b"run 2")
    assert storage.read_bytes("s3://corpus/s/1") == b"run 1"


@pytest.mark.usefixtures("hasty")
def test_a_big_s3_upload_is_whole_or_absent(proxied: FaultyProxy, s3: Any) -> None:
    data = random.Random(0).randbytes(60 << 20)  # more than one part

    def upload() -> None:
        with storage.AtomicFile("s3://corpus/big") as file:
            file.write(data)

    proxied.plan("PUT", "reset", 1)
    upload()
    s3.invalidate_cache()
    assert s3.cat_file("corpus/big") == data
    s3.rm("corpus/big")
    proxied.plan("PUT", "403", 10**6)
    with pytest.raises(StorageError, match="cannot write 's3://corpus/big': access is denied"):
        upload()
    s3.invalidate_cache()
    assert s3.ls("corpus", refresh=True) == []
    assert s3.call_s3("list_multipart_uploads", Bucket="corpus").get("Uploads", []) == []
