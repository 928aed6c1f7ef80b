"""Checkpoints: folders or pinned hub ids, safetensors only; every mistake is one line that says where."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.checkpoint import resolve
from pipeline.errors import ConfigError

WHERE = "features.a.encoder.checkpoint"


def _folder(tmp_path: Path, *files: str) -> str:
    folder = tmp_path / f"with-{len(files)}-{'-'.join(files)}"
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).write_text("{}")
    return str(folder)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pinned = "0123456789abcdef0123456789abcdef01234567"
    cases = [
        ("no/such/folder", None, "no folder"),
        ("owner/name", None, "pin the commit"),
        ("owner/name", "main", "pin the commit"),
        ("owner/name", pinned, "cannot fetch 'owner/name'"),
        (_folder(tmp_path), pinned, "revisions are for hub ids"),
        (_folder(tmp_path), None, "has no config.json"),
        (_folder(tmp_path, "config.json"), None, "holds no weights"),
        (_folder(tmp_path, "config.json", "pytorch_model.bin"), None, "holds only pytorch_model.bin; only safetensors"),
    ]
    for name, revision, words in cases:
        with pytest.raises(ConfigError) as caught:
            resolve(name, revision, WHERE)
        assert str(caught.value).startswith(f"{WHERE}: ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_digests_see_what_they_name(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "vit", tmp_path / "vit")
    found = resolve(str(tmp_path / "vit"), None, WHERE)
    weights, preprocessing = found.weights_sha256(), found.preprocessing_sha256()
    with (tmp_path / "vit" / "preprocessor_config.json").open("a") as file:
        file.write(" ")
    assert found.weights_sha256() == weights
    assert found.preprocessing_sha256() != preprocessing
    with (tmp_path / "vit" / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert found.weights_sha256() != weights


def test_architecture_is_required(models: Path) -> None:
    found = resolve(str(models / "vit"), None, WHERE)
    found.require("vit", "dinov2")
    with pytest.raises(ConfigError, match="is of model_type 'vit'; this encoder takes bert"):
        found.require("bert")


def test_broken_json_says_which(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        _ = resolve(str(tmp_path), None, WHERE).model_type
