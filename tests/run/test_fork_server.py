"""The fork server of a run checks its features and has the imports of all that forks from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.checkpoint import checkpoint, digests
from pipeline.config import features
from pipeline.core.errors import ConfigError
from pipeline.run import extract, fork_server, prepare
from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.fork_server import ONE_THREAD, ForkedProcess
from pipeline.sandbox.process import ProcessOptions
from tests.sandbox.plain_stages import Plain
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_its_features_are_those_that_are_bound_here(models: Path, tmp_path: Path) -> None:
    clip = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": {"kind": "clip"}}
    clip["encoder"]["checkpoint"] = str(models / "clip")  # type: ignore[index]
    settings = config(tmp_path, {"i": IMAGE, "c": clip})
    with fork_server.started(settings) as started:
        assert started is not None
        assert started.features() == features.bind(settings)


def test_a_mistake_is_told_as_it_is_without_one(tmp_path: Path) -> None:
    settings = config(tmp_path, {"i": {**IMAGE, "tokenizer": {"kind": "patch", "size": 10, "patch_size": 3}}})
    with pytest.raises(ConfigError) as here:
        features.bind(settings)
    with fork_server.started(settings) as started:
        assert started is not None
        with pytest.raises(ConfigError) as there:
            started.features()
    assert str(there.value) == str(here.value)


def test_a_run_on_a_cluster_only_binds_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run._binding_cache.load", lambda config: None)  # another test may have bound it
    settings = config(tmp_path / "in", {"i": IMAGE}, engine={"kind": "ray"})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    with fork_server.started(settings) as started:
        assert started is not None
        server = started._server
        assert server is not None
        bound = prepare(settings, fork_server=started)
        assert bound.features == features.bind(settings)
        assert server.process.poll() is not None, "its memory is free before Ray starts"


def test_a_run_without_ray_has_one_wherever_ray_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    settings = config(tmp_path, {"i": IMAGE})
    with fork_server.started(settings, "local") as started:
        assert started is not None
        assert started.features() == features.bind(settings)
    with fork_server.started(settings, "inline") as started:
        assert started is None


def test_known_features_start_it_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path, {"i": IMAGE})
    known = features.bind(settings)
    monkeypatch.setattr("pipeline.run._binding_cache.load", lambda config: known)
    with fork_server.started(settings, "local") as started:
        assert started is not None
        assert started.features() is known
        assert started._server is None
        stage = SandboxedStage(Plain(), LimitsConfig(), ProcessOptions(started.address))
        stage.setup()
        assert stage.child is not None
        assert isinstance(stage.child.process, ForkedProcess)
        stage.close()


def test_a_first_run_starts_it_before_it_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path / "in", {"i": IMAGE})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    known = features.bind(settings)
    monkeypatch.setattr("pipeline.run._binding_cache.load", lambda config: known)
    with fork_server.started(settings, "local") as first:
        assert first is not None
        bound = prepare(settings, fork_server=first, engine_name="local")
        assert first._server is not None
        extract(bound, show_progress=False)
    with fork_server.started(settings, "local") as second:
        assert second is not None
        extract(prepare(settings, fork_server=second, engine_name="local"), show_progress=False)
        assert second._server is None, "nothing is to be computed"


def test_known_weights_are_not_read_again(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = {"modality": "image", "tokenizer": {"kind": "patch"}}
    settings = config(tmp_path, {"c": {**clip, "encoder": {"kind": "clip", "checkpoint": str(models / "clip")}}})
    known, read = features.bind(settings), digests.of_folder

    def digest(path: str, suffixes: tuple[str, ...]) -> str:
        assert ".safetensors" not in suffixes, "safetensors are read"
        return read(path, suffixes)

    monkeypatch.setattr(checkpoint, "_known_weights", {})
    monkeypatch.setattr(digests, "of_folder", digest)
    with pytest.raises(ConfigError, match="safetensors"):
        fork_server.prepare(settings)
    fork_server.warm_up(settings, known)
    assert known[0].checkpoint is not None
    assert known[0].checkpoint.weights_sha256() == known[0].weights_sha256


def test_it_imports_what_the_stages_take_and_has_one_thread() -> None:
    """A process with threads forks into one whose locks may stay locked for ever. jemalloc takes care of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.programs.print_fork_server_state"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1"},
    )
    count, imported = done.stdout.split()
    assert (int(count), imported) == (1, "True"), done.stdout
