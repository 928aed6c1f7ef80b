"""Binding a config to its checkpoints finds every mistake before compute; fingerprints follow the values."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import ConfigError
from pipeline.heads.linear import save
from tests.config.features_fixtures import RAW_IMAGE, bind_one, bound, edit, feature, refused

# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "kind", "folder", "allowed"),
    [
        ("text", "bert", "clip", "bert"),
        ("image", "vit", "clip", "dinov2"),
        ("image", "clip", "vit", "clip"),
        ("text", "siglip", "clip", "siglip"),
        ("audio", "whisper", "wav2vec2", "whisper"),
        ("audio", "wav2vec2", "ast", "hubert"),
        ("audio", "clap", "whisper", "clap"),
        ("audio", "ast", "clap", "audio-spectrogram-transformer"),
        ("text", "embedding_gemma2", "bert", "embedding_gemma2"),
    ],
)
def test_a_wrong_architecture(models: Path, modality: str, kind: str, folder: str, allowed: str) -> None:
    line = refused(feature(modality, kind, models / folder))
    model_type = json.loads((models / folder / "config.json").read_text())["model_type"]
    assert line.startswith(f"features.f.encoder.checkpoint: {str(models / folder)!r} is of model_type {model_type!r}; ")
    assert allowed in line.split("this encoder takes ")[1]


@pytest.mark.parametrize("kind", ["videomae", "vjepa2"])
def test_a_picture_model_for_tubelets(models: Path, kind: str) -> None:
    one = feature("video", kind, models / "vit", tokenizer={"kind": "tubelet"})
    assert "features.f.encoder.checkpoint: " in refused(one)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    line = refused(feature("image", "vit", tmp_path / "none"))
    assert line.startswith(f"features.f.encoder.checkpoint: no folder {str(tmp_path / 'none')!r}")
    one = feature("image", "vit", Path("google/vit"))
    assert "its revision is 'main'; pin the commit" in refused(
        {**one, "encoder": {**one["encoder"], "revision": "main"}}
    )


def test_a_config_that_no_such_model_has(clip: Path) -> None:
    edit(clip, vision_config={"hidden_size": "wide"})
    line = refused(feature("image", "clip", clip))
    assert line.startswith("features.f.encoder.checkpoint: ")
    assert "hidden_size" in line


@pytest.mark.parametrize(
    ("modality", "folder", "file", "place", "value", "words"),
    [
        ("audio", "clap", "processor", "feature_extractor.fft_window_size", 1 << 20, "is 1048576; at most 65536"),
        ("audio", "clap", "processor", "feature_extractor.max_length_s", "", "max_length_s is ''; a number"),
        ("audio", "whisper", "preprocessor", "n_fft", "x", "n_fft is 'x'; a number"),
        ("audio", "whisper", "preprocessor", "chunk_length", [30], "chunk_length is [30]; a number"),
        ("image", "clip", "processor", "image_processor.size", {"height": -1, "width": {}}, ""),
        ("image", "clip", "processor", "image_processor.crop_size", "x", ""),
        ("text", "bert", "tokenizer", "model_max_length", "long", ""),
        ("text", "clip", "", "text_config.max_position_embeddings", {}, ""),
    ],
)
def test_a_value_of_another_kind(
    models: Path, tmp_path: Path, modality: str, folder: str, file: str, place: str, value: Any, words: str
) -> None:
    """Each class of a model finds out in its own way; it is a mistake of the checkpoint all the same."""
    checkpoint = Path(shutil.copytree(models / folder, tmp_path / folder))
    path = checkpoint / f"{file}_config.json".removeprefix("_")
    found = inner = json.loads(path.read_text())
    *above, name = place.split(".")
    for key in above:
        inner = inner[key]
    inner[name] = value
    path.write_text(json.dumps(found))
    line = refused(feature(modality, folder, checkpoint))
    assert line.startswith("features.f.")
    assert words in line


@pytest.mark.parametrize(
    ("modality", "kind", "folder", "expected"),
    [
        ("text", "vit", "vit", "features.f.modality: 'text'; this encoder takes image, video"),
        ("audio", "bert", "bert", "features.f.modality: 'audio'; this encoder takes text"),
        ("image", "whisper", "whisper", "features.f.modality: 'image'; this encoder takes audio"),
        ("video", "clap", "clap", "features.f.modality: 'video'; this encoder takes "),
    ],
)
def test_a_modality_that_the_encoder_does_not_take(
    models: Path, modality: str, kind: str, folder: str, expected: str
) -> None:
    assert refused(feature(modality, kind, models / folder)).startswith(expected)


@pytest.mark.parametrize(
    ("modality", "kind", "tokenizer"),
    [
        ("image", "clip", "text"),
        ("text", "clip", "patch"),
        ("video", "clip", "patch"),
        ("video", "clip", "tubelet"),
        ("audio", "clap", "text"),
        ("image", "embedding_gemma2", "frame"),
    ],
)
def test_a_tokenizer_of_another_modality(models: Path, modality: str, kind: str, tokenizer: str) -> None:
    line = refused(feature(modality, kind, models / kind, tokenizer={"kind": tokenizer}))
    assert line.startswith(f"features.f.tokenizer.kind: {tokenizer!r}; ")


def test_raw_takes_any_tokenizer_but_of_its_modality() -> None:
    line = refused({**RAW_IMAGE, "modality": "audio"})
    assert line == "features.f.tokenizer.kind: 'patch' reads image; not audio"


def test_emitting_what_an_encoder_lacks(models: Path) -> None:
    ids = {"modality": "text", "tokenizer": {"kind": "text", "checkpoint": str(models / "bert")}}
    for one, expected in (
        ({**RAW_IMAGE, "emit": ["embedding"]}, "features.f.emit: 'embedding'; encoder 'raw' gives no embedding"),
        ({**ids, "encoder": {"kind": "raw"}, "emit": ["tokens"]}, "features.f.emit: 'tokens'; encoder 'raw' gives no"),
        (feature("image", "clip", models / "clip", emit=["token_ids"]), "features.f.emit: 'token_ids'; image has no"),
        (feature("audio", "whisper", models / "whisper", emit=["tokens", "token_ids"]), "features.f.emit: 'token_ids'"),
    ):
        assert refused(one).startswith(expected)


def test_siglip_without_its_pooling_head_gives_no_embedding(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "siglip", tmp_path / "siglip"))
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    edit(folder, vision_config={**vision, "vision_use_head": False})
    assert "features.f.emit: 'embedding'; encoder 'siglip'" in refused(feature("image", "siglip", folder))
    assert bind_one(feature("image", "siglip", folder, emit=["tokens"])).dim is None


def test_two_features_that_cut_the_texts(models: Path) -> None:
    one = feature("text", "bert", models / "bert", tokenizer={"kind": "text", "overflow": "windows"})
    with pytest.raises(ConfigError, match=r"features\.b\.tokenizer\.overflow: 'windows', and so has 'a'"):
        bound({"a": one, "b": one})


# -- heads and spaces ------------------------------------------------------------------------------


def test_a_head_of_another_width(models: Path, tmp_path: Path) -> None:
    """CLIP projects to 24; its tower is 48 wide."""
    path = str(tmp_path / "h.safetensors")
    head = {"kind": "linear", "weights": path}
    save(path, np.ones((7, 48)), "ours")
    line = refused(feature("image", "clip", models / "clip", head=head))
    assert line == "features.f.head.weights: weight [7, 48]; the encoder's vectors have 24 values"
    save(path, np.ones((7, 24)), "ours")
    done = bind_one(feature("image", "clip", models / "clip", head=head, emit=["embedding", "tokens"]))
    assert (done.dim, done.space, done.normalized, done.spec.token_dim) == (7, "ours", True, 48)


def test_words_and_pictures_of_clip_share_a_space(models: Path, clip: Path) -> None:
    encoder = {"kind": "clip", "checkpoint": str(clip)}
    caption, picture, film, other = bound(
        {
            "caption": feature("text", "clip", models / "clip"),
            "picture": feature("image", "clip", clip),
            "film": {"modality": "video", "tokenizer": {"kind": "frame"}, "encoder": encoder},
            "other": feature("image", "siglip", models / "siglip"),
        }
    )
    assert caption.space == picture.space == film.space != other.space
    assert caption.dim == picture.dim == film.dim == 24
    assert all(one.normalized for one in (caption, picture, film))


def test_other_weights_are_another_space(models: Path, clip: Path) -> None:
    weights = bytearray((clip / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (clip / "model.safetensors").write_bytes(weights)
    first, second = bound({"a": feature("image", "clip", clip), "b": feature("image", "clip", models / "clip")})
    assert first.space != second.space
    assert first.weights_sha256 != second.weights_sha256


# -- stored columns --------------------------------------------------------------------------------


def test_columns_of_a_picture(models: Path) -> None:
    emit = ["embedding", "tokens", "prefix_tokens"]
    done = bind_one(feature("image", "vit", models / "dinov2", emit=emit))
    width = json.loads((models / "dinov2" / "config.json").read_text())["hidden_size"]
    assert [(field.name, field.type) for field in done.fields()] == [
        ("f_embedding", pa.list_(pa.float32())),
        ("f_tokens", pa.list_(pa.list_(pa.float16(), width))),
        ("f_prefix_tokens", pa.list_(pa.list_(pa.float16(), width))),
        ("f_grid", pa.list_(pa.int32())),
    ]
    assert (done.dim, done.timed, done.token_dtype) == (width, False, "float16")


def test_what_has_times_has_a_column_of_them(models: Path) -> None:
    store = {"embedding": "float16", "tokens": "float32"}
    done = bind_one(feature("audio", "wav2vec2", models / "wav2vec2", emit=["tokens", "embedding"], store=store))
    width = json.loads((models / "wav2vec2" / "config.json").read_text())["hidden_size"]
    assert {field.name: field.type for field in done.fields()} == {
        "f_embedding": pa.list_(pa.float16()),
        "f_tokens": pa.list_(pa.list_(pa.float32(), width)),
        "f_grid": pa.list_(pa.int32()),
        "f_times": pa.list_(pa.float64()),
    }


def test_a_vector_a_frame_is_as_wide_as_the_embedding(models: Path) -> None:
    for tokens, width in (("frame", 24), ("patch", 48)):
        tokenizer = {"kind": "frame", "tokens": tokens}
        done = bind_one(feature("video", "clip", models / "clip", tokenizer=tokenizer, emit=["tokens"]))
        assert done.spec.token_dim == width
        assert done.dim is None


def test_tokens_of_a_bfloat16_checkpoint_are_stored_as_float32(clip: Path) -> None:
    one = feature("image", "clip", clip, emit=["tokens"])
    assert bind_one(one).token_dtype == "float16"
    edit(clip, dtype="bfloat16")
    assert bind_one(one).token_dtype == "float32"
    assert bind_one(one).fields()[0].type == pa.list_(pa.list_(pa.float32(), 48))
    assert bind_one({**one, "store": {"tokens": "float16"}}).token_dtype == "float16"


def test_lineage_says_what_made_the_values(models: Path) -> None:
    one = feature("text", "bert", models / "bert", tokenizer={"kind": "text", "prompt": "query: "})
    done = bind_one(one)
    lineage = json.loads(json.dumps(done.lineage()))
    assert lineage["model"] == str(models / "bert")
    assert (lineage["model_type"], lineage["revision"], lineage["prompt"]) == ("bert", None, "query: ")
    assert lineage["space"].startswith(f"bert:{lineage['weights_sha256'][:12]}")
    assert lineage["dim"] == lineage["token_dim"] == 48
    assert (lineage["dtype"], lineage["embedding_dtype"], lineage["token_dtype"]) == ("float32", "float32", "float16")
    assert lineage["fingerprint"] == done.fingerprint


def test_a_feature_travels_and_builds_its_parts(models: Path) -> None:
    done = pickle.loads(pickle.dumps(bind_one(feature("image", "clip", models / "clip"))))
    assert len(pickle.dumps(done)) < 5_000
    assert done.tokenizer().modality == "image"
    assert done.encoder().spec() == done.spec
    assert done.head().dim == done.dim


def test_decord_is_asked_for_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheels are for x86-64 only. Features that read no video take nothing of it."""
    video = {
        "modality": "video",
        "tokenizer": {"kind": "frame", "size": 32},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    monkeypatch.setitem(sys.modules, "decord", None)
    reported = refused(video, decoders={"video": {"kind": "decord"}})
    assert reported == (
        "decoders.video.kind: 'decord', which is not installed here: it has wheels for x86-64 only; "
        "pyav, which reads the same files"
    )
    bind_one(RAW_IMAGE, decoders={"video": {"kind": "decord"}})
    bind_one(video)
