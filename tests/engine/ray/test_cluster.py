"""The cluster a run computes on: none there, no room on it, and a node that takes a pool's only room along."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import run
from pipeline.core.errors import ConfigError
from pipeline.core.system import private_folder
from pipeline.engine.ray import cluster
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT


def test_nothing_listens_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    named = config(tmp_path, {"i": IMAGE}, compute={"address": address})
    with pytest.raises(ConfigError, match=rf"compute\.address: no Ray cluster answers at '{address}'"):
        cluster.check(named.compute)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
    with pytest.raises(ConfigError, match=rf"RAY_ADDRESS: no Ray cluster answers at 'ray://{address}'"):
        cluster.check(config(tmp_path, {"i": IMAGE}).compute)


@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        # sockets lie below that folder, and its name is longer than a socket's may be
        ("RAY_TMPDIR", "/tmp/" + "t" * 100, 4, "Ray does not start on this machine ("),
        ("RAY_ADDRESS", "nonsense", 2, "RAY_ADDRESS: no Ray cluster answers at 'nonsense' ("),
    ],
)
def test_ray_does_not_start_or_is_not_there(tmp_path: Path, name: str, value: str, code: int, words: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    (tmp_path / "c.yaml").write_text(config(tmp_path / "in", {"i": IMAGE}).model_dump_json())
    environment = {key: old for key, old in os.environ.items() if key != "RAY_ADDRESS"} | {name: value}
    command = [sys.executable, "-m", "jobs.cli", "extract", str(tmp_path / "c.yaml"), "--engine", "ray"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(f"tessera: {words}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("end", [None, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_nobody_else_may_enter_a_local_ray_and_it_leaves_nothing(tmp_path: Path, end: signal.Signals | None) -> None:
    """Ray makes its own folders writable for all: another user could take the raylet's socket away."""
    with tempfile.TemporaryDirectory(prefix="t-") as place:  # pytest's own has too long a name for sockets
        run = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.ray.programs.start_local_ray", str(tmp_path)],
            cwd=ROOT,
            env={key: old for key, old in os.environ.items() if not key.startswith(("RAY_ADDRESS", "RAY_AUTH"))}
            | {"RAY_TMPDIR": place, "HOME": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout is not None
        *reported, token, tokens = json.loads(run.stdout.readline())
        (folder, mode), *_ = reversed(reported)
        assert (token[1], tokens[1]) == (0o600, 0o700)
        assert not (tmp_path / ".ray").exists()  # Ray's own token, which others may read
        assert mode == 0o700
        assert os.path.dirname(folder) == place
        assert os.listdir(place) == [os.path.basename(folder)]
        assert os.path.exists(os.path.join(reported[0][0], "sockets"))
        if end is None:
            run.communicate("\n", timeout=60)
            assert run.returncode == 0
            assert os.listdir(place) == []
            assert not os.path.exists(tokens[0])
        else:
            run.send_signal(end)
            run.communicate(timeout=60)
            os.utime(folder, (0, 0))
            private_folder.remove(private_folder.make("ray", place))
            assert os.listdir(place) == []


def test_pools_that_the_cluster_cannot_hold_are_a_mistake_of_the_config(ray_session: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    asked = config(tmp_path / "in", {"i": IMAGE}, compute={"pools": {"default": {"num_gpus": 1}}})
    with pytest.raises(ConfigError, match=r"compute\.pools\.default\.num_gpus: 1; no node has more than 0 GPUs"):
        run.extract(run.prepare(asked, False, None, "ray"), show_progress=False)


@pytest.mark.parametrize("link", ["__cause__", "__context__", "cause"])
def test_what_an_errors_traceback_holds_is_let_go(link: str) -> None:
    class Actor: ...

    def fails() -> None:
        held = Actor()
        seen.append(weakref.ref(held))
        raise OSError

    def caught() -> OSError:
        try:
            fails()
        except OSError as error:
            return error
        raise AssertionError

    seen: list[weakref.ref[Actor]] = []
    outer = caught()
    setattr(outer, link, caught())
    assert None not in [one() for one in seen]
    cluster.release_actors(outer)
    assert [one() for one in seen] == [None, None]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_pool_whose_only_node_is_lost_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "0.png")
    command = [sys.executable, "-m", "tests.engine.ray.programs.lose_a_node", str(tmp_path / "in")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=150)
    lines = done.stdout.splitlines()
    reported = [json.loads(line.removeprefix("ERROR ")) for line in lines if line.startswith("ERROR ")]
    assert len(reported) == 1, done.stdout + done.stderr
    words = "compute.pools.default: the nodes that are left have no room for an actor of 3 CPUs and 0 GPUs"
    assert words in reported[0]["error"]
    assert 12 < reported[0]["seconds"] < 60
