"""Mistakes in a checkpoint are reported in one line before a run; digests change with the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.checkpoint.checkpoint import Checkpoint, resolve
from pipeline.core.errors import ConfigError
from tests.support import ROOT

WHERE = "features.caption.encoder.checkpoint"
COMMIT = "0123456789abcdef" * 2 + "01234567"


def refused(name: str | Path, revision: str | None = None) -> str:
    """Returns the error, which is one line."""
    with pytest.raises(ConfigError) as caught:
        resolve(str(name), revision, WHERE)
    line = str(caught.value)
    assert line.startswith(f"{WHERE}: ")
    assert "\n" not in line
    assert caught.value.allowed
    return line


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may modify."""
    return Path(shutil.copytree(models / "clip", tmp_path / "clip"))


def found(path: Path) -> Checkpoint:
    return resolve(str(path), None, WHERE)


def test_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    checkpoint = resolve("clip", None, WHERE)
    assert (checkpoint.path, checkpoint.name, checkpoint.revision) == (str(folder), "clip", None)
    assert checkpoint.model_type == "clip"
    assert checkpoint.model_config().vision_config.hidden_size == 48
    assert checkpoint.json("no_such_file.json") == {}
    checkpoint.require("siglip", "clip")


def test_no_such_folder(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path / "nowhere")
    assert "no folder 'clip'; give a folder, a URL, or a hub id" in refused("clip")
    assert "no folder ''" in refused("")
    assert "no folder '../../etc/passwd'" in refused("../../etc/passwd", COMMIT)


def test_a_file_is_no_folder(folder: Path) -> None:
    assert "no folder" in refused(folder / "model.safetensors")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper(), COMMIT + "0", ""])
def test_a_hub_id_needs_its_commit(revision: str | None) -> None:
    line = refused("openai/clip-vit-base-patch32", revision)
    assert repr(revision) in line
    assert line.endswith("pin the commit: revision: <40 hex digits>")


def test_a_folder_has_no_revision(folder: Path) -> None:
    assert f"revision '{COMMIT}' for the folder" in refused(folder, COMMIT)


def test_a_hub_out_of_reach() -> None:
    """Runs in a subprocess: the hub's client reads its settings when it is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.programs.resolve_from_hub", "no-one/nothing", COMMIT, WHERE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    assert done.stdout.startswith(f"{WHERE}: cannot fetch 'no-one/nothing' at {COMMIT[:12]} (LocalEntryNotFoundError: ")
    assert done.stdout.endswith("; check the id, or give a folder\n")
    assert done.stdout.count("\n") == 1


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json; give a folder written by save_pretrained" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "flax_model.msgpack", "tf_model.h5"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    line = refused(folder)
    assert f"holds only {name}; only safetensors are loaded" in line


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refused(folder)


@pytest.mark.parametrize(
    ("content", "reported_error"),
    [
        (b"{", "config.json cannot be read (JSONDecodeError"),
        (b"", "config.json cannot be read (JSONDecodeError"),
        (b'{"model_type": "\xff"}', "config.json cannot be read (UnicodeDecodeError"),
        (b'["clip"]', "config.json holds list"),
        (b"null", "config.json holds NoneType"),
        (b'"clip"', "config.json holds str"),
    ],
)
def test_a_broken_config(folder: Path, content: bytes, reported_error: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        found(folder).require("clip")
    assert reported_error in str(caught.value)
    assert caught.value.where == WHERE


@pytest.mark.parametrize(
    "content", ['{"model_type": "clip", "projection_dim": "wide"}', '{"model_type": "no-such"}', "{}"]
)
def test_a_config_that_transformers_refuses(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json that transformers refuses") as caught:
        found(folder).model_config()
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert "\n" not in str(caught.value)


def test_another_architecture(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"is of model_type 'clip'; this encoder takes vit, dinov2$"):
        found(folder).require("vit", "dinov2")


def test_digests_follow_their_own_files_only(folder: Path) -> None:
    before = found(folder)
    weights, preprocessing = before.weights_sha256(), before.preprocessing_sha256()
    processor = folder / "processor_config.json"
    processor.write_text(processor.read_text() + " ")
    assert found(folder).weights_sha256() == weights
    changed = found(folder).preprocessing_sha256()
    assert changed != preprocessing
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)  # as many bytes as before
    assert found(folder).weights_sha256() != weights
    assert found(folder).preprocessing_sha256() == changed
    (folder / "README.md").write_text("what no model reads")
    assert found(folder).preprocessing_sha256() == changed


def test_a_further_or_a_renamed_weight_file_is_another_model(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors"}}
    whole = found(folder).weights_sha256()
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    renamed = found(folder).weights_sha256()
    shutil.copy(folder / "model-1.safetensors", folder / "model-2.safetensors")
    assert len({whole, renamed, found(folder).weights_sha256()}) == 3


def test_weights_that_are_not_whole(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:7], b"", b"\xff" * 64, whole + b"\0"):
        weights.write_bytes(data)
        assert "model.safetensors is no whole safetensors file" in refused(folder)
    weights.write_bytes(whole)
    assert found(folder)


def test_weights_under_a_name_that_nothing_loads(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "holds 'weights.safetensors' but no index; name it model.safetensors" in refused(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert "lacks model-1.safetensors, which model.safetensors.index.json names" in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in refused(folder)


def test_digests_do_not_depend_on_the_place(folder: Path, models: Path) -> None:
    here, there = found(folder), found(models / "clip")
    assert here.weights_sha256() == there.weights_sha256()
    assert here.preprocessing_sha256() == there.preprocessing_sha256()
