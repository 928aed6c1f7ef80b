"""Publishing is all or nothing, a commit is exclusive, errors name the file, and what may pass is tried again."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline import storage
from pipeline.core.errors import ConfigError, SampleError, StorageError
from pipeline.storage import retry
from pipeline.storage.blob import Blob
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_proxy import FaultyProxy


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
    assert (blob.read(), blob.read(2), blob.size(), blob.local) == (b"hello", b"he", 5, True)
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


def test_a_place_that_creates_a_file_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an object store does that does not know If-None-Match."""
    from fsspec.implementations.memory import MemoryFileSystem

    storage.check_writable("memory://careful", "output.path")
    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": real(self, path, value)
    )
    with pytest.raises(ConfigError, match=r"output\.path: 'memory://careless' lets a second writer create a file"):
        storage.check_writable("memory://careless", "output.path")


def test_check_writable(tmp_path) -> None:
    storage.check_writable(str(tmp_path / "new" / "folder"), "output.path")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "file" / "below"), "/proc/nowhere", "nosuchscheme://x/y"):
        with pytest.raises(ConfigError, match=r"output\.path: cannot write to"):
            storage.check_writable(place, "output.path")


# -- faults ----------------------------------------------------------------------------------------

PASSING = ["reset", "timeout", "asyncio", "read_timeout", "slow_down", "too_many", "server"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", PASSING)
def test_a_file_of_the_corpus_is_read_in_the_end(tmp_path: Path, error: str) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    blob = Blob(f"faulty://{tmp_path}/a")
    for op in ("open", "info", "read"):
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        assert blob.read() == b"hello"
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        assert blob.read(2) == b"he"
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        assert blob.size() == 5
        faulty.plan(tmp_path, {"a": Fault(op, error)})
        with pytest.raises(SampleError) as caught:
            blob.read()
        assert caught.value.kind == "io"
        assert str(tmp_path / "a") in caught.value.message
        assert faulty.calls(tmp_path, op, "a") == retry.ATTEMPTS


@pytest.mark.usefixtures("hasty")
def test_a_truncated_read_is_no_shorter_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    blob = Blob(f"faulty://{tmp_path}/a")
    for read, after in ((blob.read, 4), (blob.read, 0), (lambda: blob.read(3), 2)):
        faulty.plan(tmp_path, {"a": Fault("read", "short", times=2, after=after)})
        assert b"hello".startswith(read())
        faulty.plan(tmp_path, {"a": Fault("read", "short", after=after)})
        with pytest.raises(SampleError, match=f"io: .*truncated read: {after} of"):
            read()
    faulty.plan(tmp_path, {"a": Fault("read", "hang", times=1, after=1)})
    assert blob.read() == b"hello"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", ["denied", "denied_s3", "bad_request", "missing"])
def test_what_no_waiting_mends_is_asked_once(tmp_path: Path, error: str) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    faulty.plan(tmp_path, {"a": Fault("open", error)})
    with pytest.raises(SampleError) as caught:
        Blob(f"faulty://{tmp_path}/a").read()
    assert caught.value.kind == ("missing" if error == "missing" else "io")
    assert faulty.calls(tmp_path, "open", "a") == 1


def test_local_files_are_opened_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    with Blob(str(tmp_path / "a")).open() as file:
        assert type(file) is io.BufferedReader


def _everything(root: str) -> None:
    """Each way in which a dataset's place is used, once."""
    storage.publish(storage.join(root, "d", "a"), b"1")
    with storage.publishing(storage.join(root, "d", "b")) as file:
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
    with storage.publishing(f"faulty://{tmp_path}/f") as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
        assert not (tmp_path / "f").exists()
    assert (tmp_path / "f").read_bytes() == data
    assert faulty.calls(tmp_path, "write", "f") == 4


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


WRITES = {
    "publish": lambda url: storage.publish(url, b"x" * 5000),
    "publish_new": lambda url: storage.publish_new(url, b"x" * 5000),
    "publishing": lambda url: _publish_in_pieces(url),
}


def _publish_in_pieces(url: str) -> None:
    with storage.publishing(url) as file:
        for _ in range(50):
            file.write(b"x" * 100)


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
        with storage.publishing(f"faulty://{tmp_path}/f") as file:
            file.write(b"half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        broken()
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_ends_it_in_one_line(small_disk: Path) -> None:
    for write in (
        lambda: storage.publish(str(small_disk / "d" / "f"), b"x" * (2 << 20)),
        lambda: storage.publish_new(str(small_disk / "d" / "f"), b"x" * (2 << 20)),
        lambda: _shard(small_disk / "d" / "f.parquet"),
    ):
        with pytest.raises(StorageError, match=r"cannot write '.*': it is full \(OSError: \[Errno 28\]"):
            write()
        assert os.listdir(small_disk / "d") == []


def _shard(path: Path) -> None:
    """As the sink writes: Arrow calls the file."""
    table = pa.table({"x": np.random.default_rng(0).random(400_000)})
    with storage.publishing(str(path)) as file:
        pq.write_table(table, pa.PythonFile(file, mode="w"))


def test_an_upload_whose_temporary_disk_is_full_says_so(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        pytest.raises(StorageError, match=f"cannot write '{small_disk}/f.*': it is full"),
        storage.publishing(f"faulty://{tmp_path}/f") as file,
    ):
        file.write(b"x" * (3 << 20))
    assert os.listdir(small_disk) == []


# -- a real S3 server behind a proxy that breaks things ----------------------------------------------


@pytest.fixture
def proxied(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The bucket ``corpus`` of a true server; what s3fs asks goes through a proxy."""
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


S3_FAULTS = ["500", "502", "503", "429", "reset", "cut", "silent"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", S3_FAULTS)
def test_s3_reads_survive_what_a_server_does(proxied: FaultyProxy, fault: str) -> None:
    data = random.Random(0).randbytes(300_000)
    storage.publish("s3://corpus/a", data)
    times = 1 if fault == "silent" else 3
    blob = Blob("s3://corpus/a")
    for read in (blob.read, lambda: storage.read_bytes("s3://corpus/a"), lambda: _by_ranges(blob)):
        proxied.plan("GET", fault, times)
        assert read() == data
        assert proxied.left("GET") == 0
    if fault != "silent":
        proxied.plan("GET", fault, 10**6)
        with pytest.raises(SampleError) as caught:
            blob.read()
        assert caught.value.kind == "io"
        with blob.open() as file, pytest.raises(SampleError) as caught:
            file.read(1000)
        assert caught.value.kind == "io"


@pytest.mark.usefixtures("hasty")
def test_s3_answers_that_claim_to_be_whole_and_are_short(proxied: FaultyProxy) -> None:
    """A length that fits the body: no HTTP library can see that anything is missing."""
    data = random.Random(0).randbytes(300_000)
    storage.publish("s3://corpus/a", data)
    blob = Blob("s3://corpus/a")
    for read in (blob.read, lambda: _by_ranges(blob)):
        proxied.plan("GET", "short", 2)
        assert read() == data
        assert proxied.left("GET") == 0
        proxied.plan("GET", "empty", 10**6)
        with pytest.raises(SampleError, match=r"io: .*(truncated read|checksum)"):
            read()


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
@pytest.mark.parametrize("attempts", ["1", "3"])
def test_an_s3_commit_whose_answer_is_lost_is_ours_still(
    proxied: FaultyProxy, attempts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again, we or botocore below us, meets the file that the first request made."""
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
        with storage.publishing("s3://corpus/big") as file:
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


@pytest.mark.usefixtures("hasty")
def test_a_bucket_that_is_denied_or_not_there(proxied: FaultyProxy) -> None:
    with pytest.raises(StorageError, match=r"cannot write 's3://nobody/x': it failed .*bucket does not exist"):
        storage.publish("s3://nobody/x", b"1")
    proxied.plan("PUT", "403", 10**6)
    for write in WRITES.values():
        with pytest.raises(StorageError, match="cannot write 's3://corpus/x': access is denied"):
            write("s3://corpus/x")
    asked = 10**6 - proxied.left("PUT")
    assert asked == len(WRITES)
    proxied.plan("GET", "403", 10**6)
    with pytest.raises(StorageError, match="cannot list 's3://corpus/x': access is denied"):
        storage.list_files("s3://corpus/x")
