"""What can be said of a submission before a cluster takes it. On a real cluster: test_submit.py."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import _cluster, _job_package
from jobs._job_output import LogLines, print_json_only
from pipeline.core.errors import ConfigError
from tests.stages.media_fixtures import IMAGE, config


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # so that what `connect` sets is removed afterwards
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "--address: not given, and RAY_API_SERVER_ADDRESS is not set; the URL of the cluster's dashboard"),
        ("http://127.0.0.1:9", "--address: nothing answers at 'http://127.0.0.1:9' (ConnectionRefusedError"),
        ("127.0.0.1:9", "--address: nothing answers at 'http://127.0.0.1:9'"),
        ("ray://127.0.0.1:10001", "--address: 'ray://127.0.0.1:10001'; the URL of the cluster's dashboard"),
        ("os://x", "--address: 'os://x'; the URL"),
        ("http://host:port", "--address: 'http://host:port'; the URL"),
        ("http://me:pw@127.0.0.1:9", "--address: a URL with a password; the URL of the cluster's dashboard"),
    ],
)
def test_addresses(address: str | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _cluster.connect(address)
    assert str(caught.value).startswith(words)
    assert "pw" not in str(caught.value)


def test_the_variable_is_named_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"RAY_API_SERVER_ADDRESS: nothing answers"):
        _cluster.connect(None)


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ConfigError, match=r"--address: 'http://127.0.0.1:\d+' does not answer as it should \(Read"):
            _cluster.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY=x", "--env: AWS_SECRET_ACCESS_KEY holds a secret; set it on the cluster's nodes"),
        ("PGPASSWORD=x", "--env: PGPASSWORD holds a secret"),
        ("URL=https://me:pw@host/", "--env: URL holds a secret"),
        ("nothing", "--env: 'nothing'; write NAME=VALUE"),
        ("=x", "--env: '=x'; write NAME=VALUE"),
    ],
)
def test_variables_that_do_not_travel(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _cluster.environment_of([assignment])
    assert str(caught.value).startswith(words)
    assert "pw" not in str(caught.value)


def test_variables_that_do() -> None:
    assert _cluster.environment_of(["A=b=c", "AWS_ENDPOINT_URL=http://minio:9000", "EMPTY="]) == {
        "A": "b=c",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "EMPTY": "",
    }


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    picture = {**IMAGE, "tokenizer": {"kind": "patch"}, "emit": ["embedding"]}
    features = {
        name: {**picture, "encoder": {"kind": "clip", "checkpoint": checkpoint}}
        for name, checkpoint in {"a": "clip", "b": "./later", "c": "owner/clip", "d": "s3://models/clip"}.items()
    }
    made = _job_package.with_absolute_paths(config(Path("in/x"), features))
    assert made.source.path == str(tmp_path / "in" / "x")
    assert made.output.path == str(tmp_path / "in" / "out")
    assert [one.encoder.checkpoint for one in made.features.values()] == [  # type: ignore[union-attr]
        str(tmp_path / "clip"),
        str(tmp_path / "later"),
        "owner/clip",
        "s3://models/clip",
    ]


def test_a_mistake_in_the_config_is_found_before_anything_is_asked(called: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config(tmp_path, {"i": IMAGE}).model_dump_json())
    done = called("submit", str(path), "--set", "features.i.emit=[x]")
    assert done.returncode == 2
    assert done.stderr.startswith("tessera: features.i.emit")
    done = called("doctor", str(path), "--address", "http://127.0.0.1:9", "--engine", "local")
    assert done.stderr == "tessera: --engine: 'local' together with --address; the engine on a cluster is ray\n"


def test_documents_are_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """However the log is cut into pieces."""
    text = 'a line\n{"a": [1, 2]}\nanother\n'
    for size in (1, 3, 100):
        printer = LogLines(print_json_only)
        for start in range(0, len(text), size):
            printer(text[start : start + size])
        printer("cut")
        printer.close()
        assert capsys.readouterr() == ('{"a": [1, 2]}\n', "a line\nanother\ncut\n")


def test_the_program_of_a_job_needs_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import extract

    with pytest.raises(SystemExit) as ended:
        extract.main()
    assert ended.value.code == 2
    assert "RAY_ADDRESS: not set; submit this program as a Ray job, or run `tessera extract`" in capsys.readouterr().err
