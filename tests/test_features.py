"""Binding finds what does not fit before any compute; the fingerprint follows the values, not the machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import config as configs
from pipeline.errors import ConfigError
from pipeline.features import Feature, bind
from pipeline.heads.linear import save


def _bind(models: Path, feature: dict[str, Any], **sections: Any) -> Feature:
    encoder = dict(feature["encoder"])
    if "checkpoint" in encoder and "/" not in encoder["checkpoint"]:
        encoder["checkpoint"] = str(models / encoder["checkpoint"])
    raw = {
        "source": {"kind": "files", "path": "x"},
        "output": {"path": "out"},
        "features": {"f": {**feature, "encoder": encoder}},
        **sections,
    }
    (bound,) = bind(configs.parse(raw))
    return bound


TEXT = {"modality": "text", "tokenizer": {"kind": "text"}, "encoder": {"kind": "clip", "checkpoint": "clip"}}
IMAGE = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": {"kind": "clip", "checkpoint": "clip"}}


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (
            {**TEXT, "encoder": {"kind": "bert", "checkpoint": "clip"}},
            "features.f.encoder.checkpoint: .*model_type 'clip'",
        ),
        ({**IMAGE, "encoder": {"kind": "bert", "checkpoint": "bert"}}, r"features\.f\.modality: 'image'"),
        ({**IMAGE, "tokenizer": {"kind": "text"}}, r"features\.f\.tokenizer\.kind"),
        ({**IMAGE, "emit": ["token_ids"]}, r"features\.f\.emit: 'token_ids'; image has no token ids"),
        (
            {
                **IMAGE,
                "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
                "encoder": {"kind": "raw"},
                "emit": ["embedding"],
            },
            r"features\.f\.emit: 'embedding'; encoder 'raw' gives no embedding",
        ),
        ({**IMAGE, "head": {"kind": "linear", "weights": "nowhere"}}, r"features\.f\.head\.weights: no file"),
    ],
)
def test_what_does_not_fit(models: Path, feature: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _bind(models, feature)


def test_two_towers_share_a_space(models: Path) -> None:
    text, image = _bind(models, TEXT), _bind(models, IMAGE)
    assert text.space == image.space
    assert text.dim == image.dim
    assert text.normalized
    assert text.fingerprint != image.fingerprint


def test_a_head_names_the_space_and_the_width(models: Path, tmp_path: Path) -> None:
    native = _bind(models, IMAGE)
    path = str(tmp_path / "h.safetensors")
    save(path, np.zeros((5, native.dim or 0)), "ours-1")
    bound = _bind(models, {**IMAGE, "head": {"kind": "linear", "weights": path}})
    assert (bound.space, bound.dim) == ("ours-1", 5)
    save(path, np.zeros((5, 3)), "ours-1")
    with pytest.raises(ConfigError, match=r"features\.f\.head\.weights: weight \[5, 3\]"):
        _bind(models, {**IMAGE, "head": {"kind": "linear", "weights": path}})


def test_the_fingerprint_follows_the_values(models: Path, tmp_path: Path) -> None:
    base = _bind(models, TEXT).fingerprint

    def of(feature: dict[str, Any], **sections: Any) -> str:
        return _bind(models, feature, **sections).fingerprint

    clip = {"kind": "clip", "checkpoint": "clip"}
    shutil.copytree(models / "clip", tmp_path / "moved")
    same = [
        of({**TEXT, "encoder": {**clip, "batch_size": 3}}),
        of({**TEXT, "encoder": {**clip, "device": "cpu"}}),
        of({**TEXT, "encoder": {**clip, "checkpoint": str(tmp_path / "moved")}}),
        of({**TEXT, "pool": "other"}, compute={"pools": {"default": {}, "other": {}}}),
    ]
    assert set(same) == {base}
    other = [
        of({**TEXT, "tokenizer": {"kind": "text", "max_length": 5}}),
        of({**TEXT, "tokenizer": {"kind": "text", "prompt": "q: "}}),
        of({**TEXT, "encoder": {**clip, "dtype": "bfloat16"}}),
        of({**TEXT, "store": {"embedding": "float16"}}),
        of(TEXT, window={"length_s": 3}),
        of(TEXT, decoders={"text": {"on_other": "fail"}}),
    ]
    assert len({base, *other}) == 1 + len(other)


def test_tokens_of_a_bfloat16_checkpoint_are_stored_in_float32(models: Path, tmp_path: Path) -> None:
    assert _bind(models, {**IMAGE, "emit": ["tokens"]}).token_dtype == "float16"
    shutil.copytree(models / "clip", tmp_path / "clip")
    path = tmp_path / "clip" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "bfloat16"}))
    bound = _bind(
        models, {**IMAGE, "encoder": {"kind": "clip", "checkpoint": str(tmp_path / "clip")}, "emit": ["tokens"]}
    )
    assert bound.token_dtype == "float32"
    tokens = bound.fields()[0]
    assert (tokens.name, tokens.type) == ("f_tokens", pa.list_(pa.list_(pa.float32(), bound.spec.token_dim)))
