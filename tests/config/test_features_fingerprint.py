"""What a fingerprint counts, and what it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.heads.linear import save
from tests.config.features_fixtures import bind_one, bound, feature

# -- fingerprints ----------------------------------------------------------------------------------


def test_where_and_how_fast_is_no_part_of_a_fingerprint(models: Path, clip: Path) -> None:
    plain = bind_one(feature("image", "clip", models / "clip")).fingerprint
    encoder = {"kind": "clip", "checkpoint": str(clip), "batch_size": 3, "device": "cpu"}
    pools = {"compute": {"pools": {"default": {}, "other": {"min_actors": 1}}, "block_rows": 7}}
    elsewhere = feature("image", "clip", clip, encoder=encoder, pool="other")
    assert bind_one(elsewhere, **pools).fingerprint == plain
    assert len(plain) == 64
    two = bound({"a": feature("image", "clip", clip), "b": feature("image", "clip", clip)})
    assert two[0].fingerprint == two[1].fingerprint == plain
    sound = feature("audio", "wav2vec2", models / "wav2vec2")
    slow = {**sound, "encoder": {**sound["encoder"], "batch_s": 10}}
    assert bind_one(sound).fingerprint == bind_one(slow).fingerprint


def test_what_decides_the_values_changes_a_fingerprint(models: Path, clip: Path, tmp_path: Path) -> None:
    one = feature("text", "clip", clip)
    prompted = {**one, "tokenizer": {"kind": "text", "prompt": "a photo of "}}
    shorter = {**one, "tokenizer": {"kind": "text", "max_length": 10}}
    half = {**one, "encoder": {**one["encoder"], "dtype": "bfloat16"}}
    head = str(tmp_path / "h.safetensors")
    save(head, np.ones((7, 24)), "ours")
    found = {
        "plain": bind_one(one).fingerprint,
        "prompt": bind_one(prompted).fingerprint,
        "max_length": bind_one(shorter).fingerprint,
        "dtype": bind_one(half).fingerprint,
        "emit": bind_one({**one, "emit": ["tokens"]}).fingerprint,
        "store": bind_one({**one, "store": {"embedding": "float16"}}).fingerprint,
        "head": bind_one({**one, "head": {"kind": "linear", "weights": head}}).fingerprint,
        "normalize": bind_one({**one, "head": {"kind": "native", "normalize": False}}).fingerprint,
        "modality": bind_one(feature("image", "clip", clip)).fingerprint,
        "window": bind_one(one, window={"length_s": 5}).fingerprint,
        "tail": bind_one(one, window={"length_s": 5, "tail": "drop"}).fingerprint,
        "decoders": bind_one(one, decoders={"text": {"on_other": "fail"}}).fingerprint,
        "scaled": bind_one(one, decoders={"video": {"kind": "decord", "shorter_edge": 64}}).fingerprint,
        "small": bind_one(one, decoders={"image": {"shorter_edge": 64}}).fingerprint,
    }
    decoding = bind_one(one).identity["decoders"]
    assert not any("shorter_edge" in section for section in decoding.values() if isinstance(section, dict))
    vocabulary = json.loads((clip / "tokenizer.json").read_text())
    (clip / "tokenizer.json").write_text(json.dumps(vocabulary, indent=3))
    found["preprocessing"] = bind_one(one).fingerprint
    weights = bytearray((clip / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (clip / "model.safetensors").write_bytes(weights)
    found["weights"] = bind_one(one).fingerprint
    same = [(a, b) for a in found for b in found if a < b and found[a] == found[b]]
    assert same == []


def test_layers_that_are_not_compiled_are_named_in_no_fingerprint(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier datasets do not know of them."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # whose devices are not looked at
    one = feature("text", "clip", clip)
    compiled = {**one, "encoder": {**one["encoder"], "device": "cuda", "compile": True}}
    assert "compile" not in bind_one(one).identity["feature"]["encoder"]
    assert bind_one(one).fingerprint != bind_one(compiled).fingerprint


def test_a_head_counts_by_its_weights_not_by_its_place(models: Path, tmp_path: Path) -> None:
    def fingerprint(path: Path) -> str:
        head = {"kind": "linear", "weights": str(path)}
        return bind_one(feature("image", "clip", models / "clip", head=head)).fingerprint

    path = tmp_path / "a.safetensors"
    save(str(path), np.ones((7, 24)), "ours")
    before = fingerprint(path)
    assert fingerprint(Path(shutil.copy(path, tmp_path / "b.safetensors"))) == before
    save(str(path), np.full((7, 24), 2.0), "ours")
    assert fingerprint(path) != before


def test_a_tokenizer_alone_counts_by_its_files_not_by_its_place(models: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        tokenizer = {"kind": "text", "checkpoint": str(folder)}
        one = {"modality": "text", "tokenizer": tokenizer, "encoder": {"kind": "raw"}, "emit": ["token_ids"]}
        return bind_one(one).fingerprint

    copied = Path(shutil.copytree(models / "bert", tmp_path / "bert"))
    before = fingerprint(copied)
    assert before == fingerprint(models / "bert")
    rules = json.loads((copied / "tokenizer.json").read_text())
    rules["normalizer"]["lowercase"] = not rules["normalizer"]["lowercase"]
    (copied / "tokenizer.json").write_text(json.dumps(rules))
    assert fingerprint(copied) != before
