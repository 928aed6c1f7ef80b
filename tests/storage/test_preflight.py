"""URLs that cannot be read or written are refused before a run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.storage import preflight
from tests.support.faulty_proxy import FaultyProxy

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def test_check_readable(tmp_path) -> None:
    storage.check_readable(str(tmp_path), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: .*does not exist"):
        storage.check_readable(str(tmp_path / "no"), "source.path")
    with pytest.raises(ConfigError, match=r"source\.path: cannot reach"):
        storage.check_readable("nosuchscheme://x/y", "source.path")


def test_a_place_that_creates_a_file_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behaves like an object store that ignores If-None-Match."""
    from fsspec.implementations.memory import MemoryFileSystem

    storage.check_writable("memory://careful", "output.path")
    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="overwrite": real(self, path, value)
    )
    with pytest.raises(ConfigError, match=r"output\.path: 'memory://careless' lets a second writer create a file"):
        storage.check_writable("memory://careless", "output.path")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the endpoint of S3, and credentials."""

    def use(url: str) -> None:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield use
    s3fs.S3FileSystem.clear_instance_cache()


CHECKS = [
    (storage.check_readable, "source.path: cannot reach"),
    (storage.check_writable, "output.path: cannot write to"),
]


@pytest.mark.parametrize(("check", "words"), CHECKS)
@pytest.mark.parametrize("server", ["dead", "frozen"])
def test_an_endpoint_that_does_not_answer(
    endpoint: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[[str, str], None],
    words: str,
    server: str,
) -> None:
    """Libraries would try for a minute and more."""
    assert preflight._ANSWER_S <= 15
    monkeypatch.setattr(preflight, "_ANSWER_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}")
        if server == "dead":
            listener.close()
        started = time.monotonic()
        with pytest.raises(ConfigError) as caught:
            check("s3://corpus/in", words.partition(":")[0])
        assert time.monotonic() - started < 4
    assert str(caught.value).startswith(f"{words} 's3://corpus/in' (")
    assert "; see that its server is up, and AWS_ENDPOINT_URL if it is not on AWS" in str(caught.value)


@pytest.mark.parametrize(("check", "words"), CHECKS)
def test_no_credentials(
    s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: Callable[[str, str], None], words: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigError, match=rf"{words} 's3://corpus/in' \(.*credentials.*\); set AWS_ACCESS_KEY_ID and"):
        check("s3://corpus/in", words.partition(":")[0])


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("check", "words"), CHECKS)
def test_a_bucket_that_is_denied(proxied: FaultyProxy, check: Callable[[str, str], None], words: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        proxied.plan(method, "403", 10**6)
    with pytest.raises(ConfigError, match=rf"{words} 's3://corpus/in' \(.*\); credentials that may do this"):
        check("s3://corpus/in", words.partition(":")[0])


def test_check_writable(tmp_path) -> None:
    storage.check_writable(str(tmp_path / "new" / "folder"), "output.path")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "file" / "below"), "/proc/nowhere", "nosuchscheme://x/y"):
        with pytest.raises(ConfigError, match=r"output\.path: cannot write to"):
            storage.check_writable(place, "output.path")
