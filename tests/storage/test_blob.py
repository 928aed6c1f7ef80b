"""Files of the corpus: read as a whole or in ranges, with faults."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.core.errors import SampleError
from pipeline.storage.blob import Blob
from pipeline.storage.settings import StorageConfig
from tests.storage.test_files import PASSING, S3_FAULTS, _by_ranges
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_proxy import FaultyProxy


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


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", PASSING)
def test_a_file_of_the_corpus_is_read_in_the_end(tmp_path: Path, error: str) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    url = f"faulty://{tmp_path}/a"
    for op in ("open", "info", "read"):
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        assert Blob(url).read() == b"hello"
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        assert Blob(url).read(2) == b"he"
        faulty.plan(tmp_path, {"a": Fault(op, error, times=3)})
        blob = Blob(url)
        assert blob.size() == 5
        assert blob.cost() == (5, 4, 3)
        faulty.plan(tmp_path, {"a": Fault(op, error)})
        with pytest.raises(SampleError) as caught:
            Blob(url).read()
        assert caught.value.kind == "io"
        assert str(tmp_path / "a") in caught.value.message
        assert faulty.calls(tmp_path, op, "a") > 6


@pytest.mark.usefixtures("hasty")
def test_a_truncated_read_is_no_shorter_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came is kept, and the rest is requested."""
    (tmp_path / "a").write_bytes(b"hello")
    url = f"faulty://{tmp_path}/a"
    for after in (4, 1, 0):
        faulty.plan(tmp_path, {"a": Fault("read", "short", times=2, after=after)})
        assert Blob(url).read() == b"hello"
        faulty.plan(tmp_path, {"a": Fault("read", "short", times=2, after=after)})
        assert Blob(url).read(3) == b"hel"
    faulty.plan(tmp_path, {"a": Fault("read", "short", after=0)})
    with pytest.raises(SampleError, match=r"io: .*truncated read: 0 of 5 bytes"):
        Blob(url).read()
    monkeypatch.setenv("TESSERA_STORAGE", StorageConfig(max_wait_s=20).model_dump_json())
    faulty.plan(tmp_path, {"a": Fault("read", "hang", times=1, after=1)})
    assert Blob(url).read() == b"hello"


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


S3 = "s3://corpus/a"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", S3_FAULTS)
def test_s3_reads_survive_what_a_server_does(proxied: FaultyProxy, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(0).randbytes(300_000)
    storage.publish(S3, data)
    times = 1 if fault == "silent" else 3
    for read in (Blob(S3).read, lambda: storage.read_bytes(S3), lambda: _by_ranges(Blob(S3))):
        proxied.plan("GET", fault, times)
        assert read() == data
        assert proxied.left("GET") == 0
    if fault != "silent":
        monkeypatch.setenv("TESSERA_STORAGE", StorageConfig(max_wait_s=0.3).model_dump_json())
        proxied.plan("GET", fault, 10**6)
        for read in (Blob(S3).read, Blob(S3).size, Blob(S3).open):
            with pytest.raises(SampleError) as caught:
                read()
            assert caught.value.kind == "io"


@pytest.mark.usefixtures("hasty")
def test_s3_answers_that_claim_to_be_whole_and_are_short(proxied: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length fits the body, so that no HTTP library can notice that bytes are missing."""
    data = random.Random(0).randbytes(300_000)
    storage.publish(S3, data)
    for read in (lambda: Blob(S3).read(), lambda: _by_ranges(Blob(S3))):
        proxied.plan("GET", "short", 2)
        assert read() == data
        assert proxied.left("GET") == 0
        proxied.plan("GET", "empty", 10**6)
        monkeypatch.setenv("TESSERA_STORAGE", StorageConfig(max_wait_s=0.3).model_dump_json())
        with pytest.raises(SampleError, match=r"io: .*(truncated read|checksum)"):
            read()
