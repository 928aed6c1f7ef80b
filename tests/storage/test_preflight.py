"""URLs that cannot be read or written are refused before a run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.storage import preflight
from tests.support import ROOT
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


CHECKS = [
    (storage.check_readable, "source.path: cannot reach"),
    (storage.check_writable, "output.path: cannot write to"),
]


PROGRAM = """
import sys, time
from pipeline import storage
from pipeline.storage import preflight
preflight._ANSWER_S, started = 2.0, time.monotonic()
try:
    getattr(storage, sys.argv[1])("s3://corpus/in", sys.argv[2])
except Exception as error:
    print(time.monotonic() - started, error)
"""
"""In a process of its own: the call that was given up goes on in a thread, and would disturb other tests."""


@pytest.mark.parametrize(("check", "words"), CHECKS)
@pytest.mark.parametrize("server", ["dead", "frozen"])
def test_an_endpoint_that_does_not_answer(check: Callable[[str, str], None], words: str, server: str) -> None:
    """Libraries would try for a minute and more."""
    assert preflight._ANSWER_S <= 15
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if server == "dead":
            listener.close()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, check.__name__, words.partition(":")[0]],
            env={**os.environ, **KEYS, "AWS_ENDPOINT_URL": url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    seconds, _, message = done.stdout.partition(" ")
    assert float(seconds) < 4
    assert message.startswith(f"{words} 's3://corpus/in' (")
    assert "; see that its server is up, and storage.s3.BUCKET.endpoint_url or AWS_ENDPOINT_URL" in message


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


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("400:ExpiredToken", "credentials that have not expired"),
        ("403:RequestExpired", "credentials that have not expired"),
        ("400:IllegalLocationConstraintException", r"the region of the bucket: storage\.s3\.BUCKET\.region"),
        ("400:AuthorizationHeaderMalformed", r"the region of the bucket: storage\.s3\.BUCKET\.region"),
        ("403:InvalidAccessKeyId", "credentials that may do this"),
    ],
)
def test_what_s3_says_is_told_with_what_to_do(proxied: FaultyProxy, fault: str, advice: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        proxied.plan(method, fault, 10**6)
    for check in (storage.check_listable, storage.check_writable):
        with pytest.raises(ConfigError, match=rf"output\.path: cannot .* 's3://corpus/in' \(.*\); {advice}"):
            check("s3://corpus/in", "output.path")


def test_check_writable(tmp_path) -> None:
    storage.check_writable(str(tmp_path / "new" / "folder"), "output.path")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "file" / "below"), "/proc/nowhere", "nosuchscheme://x/y"):
        with pytest.raises(ConfigError, match=r"output\.path: cannot write to"):
            storage.check_writable(place, "output.path")


def test_a_flat_bucket_is_not_listed(proxied: FaultyProxy) -> None:
    """It may have millions of objects, of which a listing brings a thousand at a time."""
    for number in range(3):
        storage.publish(f"s3://corpus/in/{number}.png", b"x")
    s3fs.S3FileSystem.clear_instance_cache()
    proxied.requests.clear()
    storage.check_answers("s3://corpus/in/", "source.path")
    listings = [path for method, path, _ in proxied.requests if method == "GET"]
    assert len(proxied.requests) <= 3
    assert all("max-keys=1&" in path for path in listings), listings
