"""Settings of S3 buckets: what the config takes, and that corpus and output may be on different servers."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from PIL import Image

from pipeline import config as configs
from pipeline import run, storage
from pipeline.core.errors import ConfigError
from pipeline.storage import settings
from pipeline.storage.settings import DEFAULT, S3Config, StorageConfig
from tests.stages.media_fixtures import IMAGE


@pytest.fixture(autouse=True)
def own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_STORAGE", "")  # so that it is removed afterwards


def _parsed(**storage_section: Any) -> StorageConfig:
    raw = {
        "source": {"kind": "files", "path": "s3://corpus"},
        "output": {"path": "s3://out"},
        "features": {"i": IMAGE},
        "storage": storage_section,
    }
    return configs.parse(raw).storage


def test_options_of_a_bucket() -> None:
    mine = {
        "endpoint_url": "http://127.0.0.1:9000",
        "region": "eu-west-1",
        "addressing_style": "path",
        "anonymous": True,
        "profile": "corpus",
    }
    settings.use(_parsed(s3={"mine": mine, "*": {"region": "us-west-2"}}))
    assert settings.options("s3://mine/a/b.png") == {
        "endpoint_url": "http://127.0.0.1:9000",
        "client_kwargs": {"region_name": "eu-west-1"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
        "anon": True,
        "profile": "corpus",
    }
    assert settings.options("s3a://mine/a") == settings.options("s3://mine")
    assert settings.options("s3://other/mine") == {"client_kwargs": {"region_name": "us-west-2"}}
    for url in ("/mine", "file:///mine", "memory://mine/a", "gs://mine/a"):
        assert settings.options(url) == {}
    settings.use(DEFAULT)
    assert settings.options("s3://mine/a") == {}


def test_the_user_s_own_settings_hold_where_a_config_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_given", '{"s3": {"mine": {"region": "eu-west-1"}}}')
    settings.use(DEFAULT)
    assert settings.options("s3://mine/a") == {"client_kwargs": {"region_name": "eu-west-1"}}
    settings.use(StorageConfig(max_wait_s=7))
    assert settings.options("s3://mine/a") == {}
    settings.use_exactly(DEFAULT)  # a worker takes those of the driver, whatever its own machine has
    assert settings.options("s3://mine/a") == {}
    monkeypatch.setattr(settings, "_given", '{"s3": {"mine": {"regio": 1}}}')
    settings.use(DEFAULT)
    with pytest.raises(ConfigError, match=r"TESSERA_STORAGE: s3\.mine\.regio: Extra inputs are not permitted; the"):
        settings.options("s3://mine/a")


def test_processes_inherit_the_settings() -> None:
    settings.use(StorageConfig(max_wait_s=7, s3={"mine": S3Config(region="eu-west-1")}))
    program = "from pipeline.storage import settings as s; print(s.current().max_wait_s, s.options('s3://mine/a'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "7.0 {'client_kwargs': {'region_name': 'eu-west-1'}}\n"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"max_wait_s": -1}, "storage.max_wait_s: "),
        (
            {"s3": {"s3://mine": {}}},
            "storage.s3: found 's3://mine'; the name of a bucket alone",
        ),
        ({"s3": {"mine": {"endpoint": "x"}}}, "storage.s3.mine.endpoint: "),
        ({"s3": {"mine": {"endpoint_url": "minio:9000"}}}, "storage.s3.mine.endpoint_url: no address of a server"),
        ({"s3": {"mine": {"endpoint_url": "file:///etc"}}}, "storage.s3.mine.endpoint_url: no address of a server"),
        (
            {"s3": {"mine": {"endpoint_url": "http://me:pw@host"}}},
            "storage.s3.mine.endpoint_url: a URL with",
        ),
        ({"s3": {"mine": {"endpoint_url": "http://me@host"}}}, "storage.s3.mine.endpoint_url: "),
        ({"s3": {"mine": {"secret_key": "x"}}}, "storage.s3.mine.secret_key: "),
        ({"s3": {"mine": {"addressing_style": "odd"}}}, "storage.s3.mine.addressing_style: "),
    ],
)
def test_what_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parsed(**section)
    assert str(caught.value).startswith(words)
    assert "pw" not in str(caught.value)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Two S3 servers, each with one bucket of its own: ``there`` and ``here``. moto keeps one state per process, so the
    second is a process of its own."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    first = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    first.start()
    command = [sys.executable, "-m", "tests.support.programs.s3_server"]
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    urls = "http://{}:{}".format(*first.get_host_and_port()), second.stdout.readline().strip()
    urllib.request.urlopen(urllib.request.Request(f"{urls[0]}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem.clear_instance_cache()
    for url, bucket in zip(urls, ("there", "here"), strict=True):
        s3fs.S3FileSystem(endpoint_url=url).mkdir(bucket)
    yield urls
    s3fs.S3FileSystem.clear_instance_cache()
    first.stop()
    second.kill()
    second.wait()


def test_corpus_and_output_on_two_servers(servers: tuple[str, str], tmp_path: Path) -> None:
    corpus = s3fs.S3FileSystem(endpoint_url=servers[0])
    for number in range(3):
        Image.new("RGB", (20 + number, 20)).save(tmp_path / f"{number}.png")
        corpus.put_file(str(tmp_path / f"{number}.png"), f"there/in/{number}.png")
    buckets = {"there": S3Config(endpoint_url=servers[0]), "here": S3Config(endpoint_url=servers[1])}
    raw = {
        "source": {"kind": "files", "path": "s3://there/in"},
        "output": {"path": "s3://here/out"},
        "features": {"i": IMAGE},
        "storage": {"s3": {name: one.model_dump() for name, one in buckets.items()}},
    }
    made = configs.parse(raw)
    report = run.extract(run.prepare(made, engine_name="inline"), show_progress=False)
    assert (report["rows_written"], report["rows_failed"]) == (3, 0)
    assert [file for file in corpus.find("there") if "/in/" not in file] == []
    written = s3fs.S3FileSystem(endpoint_url=servers[1]).find("here/out")
    assert any(file.endswith(".parquet") for file in written)
    assert storage.exists("s3://here/out/v1")
    again = made.model_copy(update={"storage": StorageConfig(max_wait_s=5, s3={**buckets, "x": S3Config()})})
    report = run.extract(run.prepare(again, engine_name="inline"), show_progress=False)
    assert (report["samples"], report["rows_written"]) == (0, 0)
    assert "AWS_ENDPOINT_URL" not in os.environ
