"""Extractions as jobs on a real cluster of three nodes without Tessera; corpus, models and output are on S3."""

from __future__ import annotations

import json
import os
import pty
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import s3fs
import yaml

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.storage.settings import S3Config, StorageConfig
from tests.support import ROOT
from tests.support.faulty_proxy import FaultyProxy
from tests.support.ray_cluster import RayCluster, can_hide_folders, python_without_tessera

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
_RUN_COLUMNS = ["run_id", "source_version"]


@dataclass
class Bench:
    """A cluster, a storage, and a config over both."""

    cluster: RayCluster
    proxy: FaultyProxy
    s3: s3fs.S3FileSystem
    folder: Path
    secret: str

    def config(self, name: str, **sections: object) -> Path:
        """Writes a config whose output is ``s3://out/NAME``."""
        clip = {"kind": "clip", "checkpoint": "s3://corpus/models/clip"}
        raw = {
            "source": {"kind": "files", "path": "s3://corpus/in"},
            "output": {"path": f"s3://out/{name}"},
            "window": {"length_s": 5},
            "features": {
                "picture": {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": clip},
                "caption": {"modality": "text", "tokenizer": {"kind": "text"}, "encoder": clip},
            },
            "failures": {"max_fraction": 1.0},
            "storage": {"s3": {"*": {"endpoint_url": self.proxy.url}}},
            **sections,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    def tessera(self, *arguments: str) -> subprocess.Popen[str]:
        return self.cluster.tessera(*arguments, RAY_API_SERVER_ADDRESS=f"http://{self.cluster.dashboard}")

    def done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.tessera(*arguments)
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, models: Path, demo_corpus: Path) -> Iterator[Bench]:
    folder, secret = tmp_path_factory.mktemp("bench"), f"secret{secrets.token_hex(16)}"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.programs.s3_server"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    keys = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": secret, "no_proxy": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch, FaultyProxy(server.stdout.readline().strip()) as proxy:
        for name, value in keys.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        patch.setenv("TESSERA_STORAGE", StorageConfig(s3={"*": S3Config(endpoint_url=proxy.url)}).model_dump_json())
        s3fs.S3FileSystem.clear_instance_cache()
        s3 = s3fs.S3FileSystem(endpoint_url=proxy.url, skip_instance_cache=True, use_listings_cache=False)
        for bucket in ("corpus", "out"):
            s3.mkdir(bucket)
        for kind in ("drawings", "notes", "pictures"):
            s3.put(f"{demo_corpus}/{kind}", f"corpus/in/{kind}", recursive=True)
        s3.put(str(models / "clip"), "corpus/models/clip", recursive=True)
        python = python_without_tessera(folder / "python")
        drivers = folder / "cache"
        drivers.mkdir()
        with RayCluster(folder, python, {**keys, "XDG_CACHE_HOME": str(drivers)}, dashboard=True) as cluster:
            yield Bench(cluster, proxy, s3, folder, secret)
        s3fs.S3FileSystem.clear_instance_cache()
    server.kill()
    server.wait()


def _rows(out: str) -> pa.Table:
    """All rows of a dataset, in order, without what differs from run to run."""
    table = dataset.open(out).to_arrow()
    table = table.drop_columns([name for name in _RUN_COLUMNS if name in table.column_names])
    return table.take(pc.sort_indices(table, [("sample_id", "ascending"), ("window", "ascending")]))


def _until_planned(bench: Bench, name: str) -> None:
    """Waits until a run has written its plan."""
    deadline = time.monotonic() + 120
    while not any("/plan/" in key for key in bench.s3.find(f"out/{name}")) and time.monotonic() < deadline:
        time.sleep(0.2)


def test_a_submission_gives_the_rows_of_a_local_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cluster has no node at first, and then two."""
    path = bench.config("first")
    submitted = bench.tessera("submit", str(path))
    assert submitted.stdout is not None
    for line in submitted.stdout:
        if "the cluster has no node with a CPU yet: asking its autoscaler for one" in line:
            break
    for number in range(2):
        hidden = [bench.folder / "cache"] if can_hide_folders() else []
        bench.cluster.add(cpus=1, hidden=hidden, XDG_CACHE_HOME=str(bench.folder / f"cache-{number}"))
    output, errors = submitted.communicate(timeout=200)
    assert submitted.returncode == 0, output + errors
    assert errors.startswith("job raysubmit_")
    assert "dataset: s3://out/first" in output
    fetched = [p for method, p, _ in bench.proxy.requests if method == "GET" and p.endswith("clip/model.safetensors")]
    assert len(fetched) == (3 if can_hide_folders() else 1)  # the driver's node, and two that encode
    looked = bench.done("doctor", str(path), "--json")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert [node["problem"] for node in json.loads(looked.stdout)["nodes"]] == [None, None]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = configs.load(str(path), [f"output.path={tmp_path / 'out'}"])
    report = run.extract(run.prepare(local, engine_name="inline"), show_progress=False)
    assert report["rows_failed"] == 0
    here, there = _rows(str(tmp_path / "out")), _rows("s3://out/first")
    assert len(here) == report["rows_written"] > 100
    assert there.equals(here)

    again = bench.done("submit", str(path), "--json")
    assert again.returncode == 0
    assert "0 samples" in again.stderr
    assert json.loads(again.stdout)["status"] == "succeeded"

    listed = json.loads(bench.done("jobs", "list", "--json").stdout)
    assert [one["status"] for one in listed] == ["succeeded"] * 3
    assert listed[0]["output"] == "s3://out/first"
    assert listed[0]["config"] == "first.yaml"
    logs = bench.done("jobs", "logs", listed[2]["id"])
    assert logs.stdout.endswith(output)
    shown = bench.done("jobs", "status", listed[2]["id"])
    assert "status: succeeded\n" in shown.stdout
    assert "exit_code: 0\n" in shown.stdout


def test_a_stop_and_a_second_submission(bench: Bench) -> None:
    path = bench.config("stopped")
    job = bench.done("submit", str(path), "--no-wait").stdout.strip()
    following = bench.tessera("jobs", "logs", job, "--follow")
    _until_planned(bench, "stopped")
    stopped = bench.done("jobs", "stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stderr == f"job {job}: stopped\n"
    following.communicate(timeout=60)
    assert following.returncode == 4
    done = bench.done("submit", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert _rows("s3://out/stopped").equals(_rows("s3://out/first"))


def test_a_storage_that_fails_and_freezes(bench: Bench) -> None:
    """One request in twenty meets a fault, and for a minute none is answered: the same rows, and all is counted."""
    path = bench.config("faults")
    bench.proxy.plan_at_random(0.05, ["500", "503", "reset", "cut", "short"])
    before = len(bench.proxy.requests)
    job = bench.done("submit", str(path), "--no-wait").stdout.strip()
    _until_planned(bench, "faults")
    bench.proxy.freeze(60)
    done = bench.done("jobs", "logs", job, "--follow")
    bench.proxy.plan_at_random(0.0, [])
    assert done.returncode == 0, done.stdout
    assert bench.proxy.met > 20
    assert _rows("s3://out/faults").equals(_rows("s3://out/first"))
    (run_folder,) = {name.split("/")[-2] for name in bench.s3.find("out/faults/v1/_runs") if "report" in name}
    report = json.loads(bench.s3.cat_file(f"out/faults/v1/_runs/{run_folder}/report.json"))
    assert report["rows_failed"] == 0
    asked = len(bench.proxy.requests) - before
    counted = {name: report[name] for name in ("storage_requests", "storage_retries", "seconds")}
    print(f"{bench.proxy.met} faults in {asked} requests; {counted}")
    assert report["storage_retries"] > 0


def test_ctrl_c_without_a_terminal_leaves_the_job(bench: Bench) -> None:
    process = bench.tessera("submit", str(bench.config("left")))
    assert process.stderr is not None
    job = process.stderr.readline().split()[1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert f"job {job} goes on: `tessera jobs logs {job} --follow`" in errors
    assert bench.done("jobs", "logs", job, "--follow").returncode == 0


def test_ctrl_c_on_a_terminal_asks(bench: Bench) -> None:
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("tessera")), "submit", str(bench.config("asked"))]
    environment = {**bench.cluster.environment, "RAY_API_SERVER_ADDRESS": f"http://{bench.cluster.dashboard}"}
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    job = _read_until(ours, b" on http").split()[1].decode()
    process.send_signal(signal.SIGINT)
    _read_until(ours, b"or leave it running (l)? ")
    os.write(ours, b"s\n")
    assert b"has stopped; the same submission continues it" in _read_until(ours, b"continues it")
    assert process.wait(timeout=90) == 4
    assert json.loads(bench.done("jobs", "status", job, "--json").stdout)["status"] == "stopped"


def _read_until(terminal: int, words: bytes) -> bytes:
    """Returns what a program has written to its terminal when the words have come."""
    text, deadline = b"", time.monotonic() + 120
    while words not in text:
        assert time.monotonic() < deadline, text
        text += os.read(terminal, 4096)
    return text


def test_ray_s_own_command(bench: Bench, tmp_path: Path) -> None:
    """The line of docs/cluster.md, in a folder with what a checkout has."""
    for name in ("pipeline", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(bench.config("plain"), tmp_path / "config.yaml")
    ray = [
        str(Path(sys.executable).with_name("ray")),
        "job",
        "submit",
        "--address",
        f"http://{bench.cluster.dashboard}",
    ]
    command = [*ray, "--working-dir", ".", "--", "python", "-m", "jobs.extract", "config.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=bench.cluster.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _rows("s3://out/plain").equals(_rows("s3://out/first"))


def test_a_night_as_a_job(bench: Bench, tmp_path: Path) -> None:
    """Its summary is on the machine that submits, whatever happens, and in the dataset."""
    path, file = bench.config("night"), tmp_path / "summary.json"
    night = ["submit", str(path), "--nightly", "--summary", str(file)]

    def summary() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(file.read_text())
        assert found["config"] == str(path)
        return found

    done = bench.done(*night, "--deadline", "1s", "--partial-exit", "7")
    assert done.returncode == 7, done.stdout + done.stderr
    first = summary()
    assert (first["status"], first["exit_code"], first["output"]) == ("partial", 7, "s3://out/night")
    assert first["samples_left"] == first["lag"]["samples"] > 0
    done = bench.done(*night, "--deadline", "1h")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "night 2" in done.stdout
    assert '{"contract"' not in done.stdout
    second = summary()
    assert (second["status"], second["samples_left"], second["step"]) == ("complete", 0, "done")
    assert second["report"]["ray_job"] is not None
    latest = json.loads(bench.s3.cat_file("out/night/_nights/latest.json"))
    assert {**latest, "config": str(path)} == second
    assert _rows("s3://out/night").equals(_rows("s3://out/first"))

    done = bench.done(*night, "--json", "--set", "source.path=s3://corpus/none")
    assert done.returncode == 2
    assert json.loads(done.stdout) == summary()
    assert summary()["cause"].startswith("source.path: ")
    done = bench.done(*night, "--address", "http://127.0.0.1:9")
    assert done.returncode == 4
    assert (summary()["step"], summary()["try_again"]) == ("submit", True)
    done = bench.done(*night, "--deadline", "soon")
    assert done.returncode == 2
    assert "--deadline: found 'soon'" in done.stderr


def test_a_mistake_ends_the_job_with_its_exit_code(bench: Bench) -> None:
    done = bench.done("submit", str(bench.config("none")), "--set", "source.path=s3://corpus/none")
    assert done.returncode == 2
    assert "tessera: source.path: " in done.stdout
    done = bench.done("submit", str(bench.config("none")), "--set", "source.path=./none")
    assert done.returncode == 2
    absent = bench.done("jobs", "status", "raysubmit_none")
    assert absent.returncode == 2
    assert "ID: no job 'raysubmit_none' on this cluster; one of `tessera jobs list`" in absent.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env", "AWS_SECRET_ACCESS_KEY=x"], "--env: AWS_SECRET_ACCESS_KEY holds a secret; set it on the cluster's"),
        (["--env", "URL=https://me:pw@host/"], "--env: URL holds a secret"),
        (["--env", "nothing"], "--env: 'nothing'; write NAME=VALUE"),
        (["--address", "http://127.0.0.1:9"], "--address: nothing answers at 'http://127.0.0.1:9'"),
        (["--address", "ray://127.0.0.1:10001"], "--address: 'ray://127.0.0.1:10001'; the URL of the cluster's"),
        (["--address", "http://me:pw@127.0.0.1:9"], "--address: a URL with a password"),
        (["--set", "features.picture.emit=[x]"], "features.picture.emit"),
    ],
)
def test_what_is_not_submitted(bench: Bench, arguments: list[str], words: str) -> None:
    done = bench.done("submit", str(bench.config("refused")), *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"tessera: {words}")
    assert "pw" not in done.stderr


def test_the_option_counts_more_than_the_variable(bench: Bench) -> None:
    """Ray's own client takes the variable."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for variables in ({"RAY_API_SERVER_ADDRESS": elsewhere}, {"RAY_ADDRESS": "127.0.0.1:9"}):
            listed = bench.cluster.tessera("jobs", "list", "--address", bench.cluster.dashboard, **variables)
            output, errors = listed.communicate(timeout=60)
            assert listed.returncode == 0, errors
            assert "raysubmit_" in output
        started = time.monotonic()
        listed = bench.cluster.tessera("jobs", "list", "--address", elsewhere)
        _, errors = listed.communicate(timeout=60)
        assert listed.returncode == 2
        assert f"--address: '{elsewhere}' does not answer as it should (ReadTimeout" in errors
        assert time.monotonic() - started < 20


def test_another_token(bench: Bench) -> None:
    process = bench.cluster.tessera("jobs", "list", "--address", bench.cluster.dashboard, RAY_AUTH_TOKEN="f" * 64)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "asks for its token, and this process has none, or another one; set RAY_AUTH_MODE=token" in errors


def test_no_secret_in_logs_and_outputs(bench: Bench) -> None:
    """After all jobs above: Ray's logs of all nodes, and every object on the storage."""
    token = bench.cluster.environment["RAY_AUTH_TOKEN"]
    searched = 0
    for path in (path for place in bench.cluster.places for path in Path(place).rglob("*")):
        if "/logs/" in f"{path}" and path.is_file() and not path.is_symlink():
            text, searched = path.read_bytes(), searched + 1
            assert bench.secret.encode() not in text, path
            assert token.encode() not in text, path
    assert searched > 20
    assert len(json.loads(bench.done("jobs", "list", "--json").stdout)) > 2  # whose logs these are
    for key in bench.s3.find("out"):
        text = bench.s3.cat_file(key)
        assert bench.secret.encode() not in text, key
        assert token.encode() not in text, key
