"""Publishing is atomic, a commit is exclusive, errors name the file, and transient errors are retried."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.core.errors import StorageError
from pipeline.storage.blob import Blob
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_proxy import FaultyProxy


def test_publish_then_read_and_list(root: str) -> None:
    storage.publish(storage.join(root, "a", "x.json"), b"1")
    storage.publish(storage.join(root, "a", "x.json"), b"22")
    assert storage.read_bytes(storage.join(root, "a", "x.json")) == b"22"
    assert storage.list_files(storage.join(root, "a")) == ["x.json"]
    assert storage.list_files(storage.join(root, "nowhere")) == []


# -- faults ----------------------------------------------------------------------------------------

PASSING = ["reset", "timeout", "asyncio", "read_timeout", "slow_down", "too_many", "server"]


def _everything(root: str) -> None:
    """Every operation on the storage of a dataset, once."""
    storage.publish(storage.join(root, "d", "a"), b"1")
    with storage.AtomicFile(storage.join(root, "d", "b")) as file:
        file.write(b"22")
        file.write(b"333")
    assert storage.publish_new(storage.join(root, "d", "c"), b"mine")
    assert not storage.publish_new(storage.join(root, "d", "c"), b"another's")
    assert storage.read_bytes(storage.join(root, "d", "b")) == b"22333"
    assert storage.list_files(storage.join(root, "d")) == ["a", "b", "c"]
    assert storage.list_folders(root) == ["d"]
    assert storage.exists(storage.join(root, "d", "a"))
    storage.move(storage.join(root, "d", "a"), storage.join(root, "e", "a"))
    storage.move(storage.join(root, "d", "a"), storage.join(root, "e", "a"))
    assert not storage.exists(storage.join(root, "d", "a"))
    storage.remove(storage.join(root, "e", "a"))
    storage.remove(storage.join(root, "e", "a"))
    assert storage.list_files(storage.join(root, "e")) == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", PASSING)
def test_a_dataset_s_place_that_stutters(tmp_path: Path, error: str) -> None:
    ops = ("info", "open", "read", "write", "create", "list", "remove", "copy")
    faulty.plan(tmp_path, {"*": [Fault(op, error, times=1) for op in ops]})
    _everything(f"faulty://{tmp_path}")


@pytest.mark.usefixtures("hasty")
def test_an_upload_that_breaks_off_is_done_again_whole(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(20 << 20)
    faulty.plan(tmp_path, {"f": Fault("write", "reset", times=3, after=12 << 20)})
    with storage.AtomicFile(f"faulty://{tmp_path}/f") as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
        assert not (tmp_path / "f").exists()
    assert (tmp_path / "f").read_bytes() == data
    assert faulty.calls(tmp_path, "write", "f") == 4


WRITES = {
    "publish": lambda url: storage.publish(url, b"x" * 5000),
    "publish_new": lambda url: storage.publish_new(url, b"x" * 5000),
    "publishing": lambda url: _publish_in_pieces(url),
}


def _publish_in_pieces(url: str) -> None:
    with storage.AtomicFile(url) as file:
        for _ in range(50):
            file.write(b"x" * 100)


def _shard(path: Path) -> None:
    """As in the sink: Arrow writes to the file."""
    table = pa.table({"x": np.random.default_rng(0).random(400_000)})
    with storage.AtomicFile(str(path)) as file:
        pq.write_table(table, pa.PythonFile(file, mode="w"))


# -- a real S3 server behind a proxy that breaks things ----------------------------------------------


S3_FAULTS = ["500", "502", "503", "429", "reset", "cut", "silent"]


def _by_ranges(blob: Blob) -> bytes:
    with blob.open() as file:
        file.seek(0, 2)
        size, pieces = file.tell(), []
        for start in range(0, size, 70_000):
            file.seek(start)
            pieces.append(file.read(min(70_000, size - start)))
    return b"".join(pieces)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_s3_as_a_dataset_s_place(proxied: FaultyProxy, fault: str) -> None:
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        proxied.plan(method, fault, 2)
    _everything("s3://corpus/out")
    assert [proxied.left(method) for method in ("PUT", "GET", "HEAD", "DELETE")] == [0, 0, 0, 0]


@pytest.mark.usefixtures("hasty")
def test_a_bucket_that_is_denied_or_not_there(proxied: FaultyProxy) -> None:
    with pytest.raises(StorageError, match=r"cannot write 's3://no-such-bucket/x': it failed .*bucket does not exist"):
        storage.publish("s3://no-such-bucket/x", b"1")
    proxied.plan("PUT", "403", 10**6)
    for write in WRITES.values():
        with pytest.raises(StorageError, match="cannot write 's3://corpus/x': access is denied"):
            write("s3://corpus/x")
    asked = 10**6 - proxied.left("PUT")
    assert asked == len(WRITES)
    proxied.plan("GET", "403", 10**6)
    with pytest.raises(StorageError, match="cannot list 's3://corpus/x': access is denied"):
        storage.list_files("s3://corpus/x")
