"""CLIP's two towers against transformers, one sample at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.core.media import Frames, Image, Text
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig
from tests.encoders.vision_fixtures import (
    TEXTS,
    assert_distinct,
    reference_image_inputs,
    reference_model,
    runs,
    same,
    tokenized,
)


@pytest.fixture
def clip(checkpoints: dict[str, Checkpoint]) -> Checkpoint:
    return checkpoints["clip"]


def encoder(checkpoint: Checkpoint, modality: str, tokenizer: object, **options: object) -> ClipEncoder:
    return ClipEncoder(ClipConfig(checkpoint=checkpoint.path, **options), checkpoint, modality, tokenizer)


def test_images_equal_the_reference(clip: Checkpoint, pictures: list[np.ndarray]) -> None:
    inputs, model = reference_image_inputs(clip), reference_model(clip)
    with torch.inference_mode():
        features = [model.get_image_features(**inputs(p)).pooler_output[0] for p in pictures]
        hidden = [model.vision_model(**inputs(p)).last_hidden_state[0] for p in pictures]
    assert_distinct(features)
    rows = tokenized(PatchTokenizer(PatchConfig(), clip), [Image(p) for p in pictures])
    assert all(row.inputs["pixels"].dtype == np.uint8 for row in rows)
    for done in runs(lambda n: encoder(clip, "image", PatchConfig(), batch_size=n), rows):
        for ours, vector, states in zip(done, features, hidden, strict=True):
            same(ours.pooled, vector)
            same(ours.tokens, states[1:])
            same(ours.prefix_tokens, states[:1])
            assert ours.grid == (1, 3, 3)


@pytest.mark.parametrize("tokens", ["frame", "patch"])
@pytest.mark.parametrize("pool", ["mean", "max", "first"])
def test_videos_pool_unit_vectors_of_frames(clip: Checkpoint, clips: list[Frames], tokens: str, pool: str) -> None:
    inputs, model = reference_image_inputs(clip), reference_model(clip)
    tokenizer = FrameConfig(tokens=tokens)
    rows = tokenized(FrameTokenizer(tokenizer, clip), clips)
    made = list(runs(lambda n: encoder(clip, "video", tokenizer, temporal_pool=pool, batch_size=n), rows, [1, 3, 100]))
    for i, video in enumerate(clips):
        with torch.inference_mode():
            vectors = torch.cat([model.get_image_features(**inputs(f)).pooler_output for f in video.pixels])
            states = torch.cat([model.vision_model(**inputs(f)).last_hidden_state for f in video.pixels])
        unit = torch.nn.functional.normalize(vectors, dim=1)
        expected = {"mean": unit.mean(0), "max": unit.amax(0), "first": unit[0]}[pool]
        for done in made:
            same(done[i].pooled, expected)
            np.testing.assert_array_equal(done[i].times_s, video.times_s)
            same(done[i].tokens, vectors if tokens == "frame" else states[:, 1:].flatten(0, 1))
            assert done[i].grid == ((8, 1, 1) if tokens == "frame" else (8, 3, 3))
            if tokens == "patch":
                same(done[i].prefix_tokens, states[:, 0])


def test_texts_equal_the_reference(clip: Checkpoint) -> None:
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(clip.path), reference_model(clip)
    outs, ids = [], []
    for text in TEXTS:
        one = tokenizer([text], truncation=True, return_tensors="pt")
        with torch.inference_mode():
            outs.append(model.get_text_features(**one))
        ids.append(one["input_ids"][0].numpy())
    assert_distinct([out.pooler_output[0] for out in outs])
    rows = tokenized(TextTokenizer(TextTokenizerConfig(kind="text"), clip), [Text(t) for t in TEXTS])
    for done in runs(lambda n: encoder(clip, "text", TextTokenizerConfig(kind="text"), batch_size=n), rows):
        for ours, out, row in zip(done, outs, ids, strict=True):
            same(ours.pooled, out.pooler_output[0])
            same(ours.tokens, out.last_hidden_state[0, 1:-1])
            same(ours.prefix_tokens, out.last_hidden_state[0, :1])
            np.testing.assert_array_equal(ours.token_ids, row[1:-1])
            assert ours.grid == (len(row) - 2, 1, 1)


def test_a_checkpoint_as_openai_wrote_it(clip: Checkpoint, pictures: list[np.ndarray], tmp_path: Path) -> None:
    """Its processor is a feature extractor with plain sizes, and its config gives a wrong end-of-text id, 2."""
    from transformers import AutoTokenizer

    shutil.copytree(clip.path, tmp_path / "old")
    config = clip.json("config.json")
    config["text_config"]["eos_token_id"] = 2
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    (tmp_path / "old" / "processor_config.json").unlink()
    mean_std = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    does = {"do_center_crop": True, "do_normalize": True, "do_resize": True}
    extractor = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 48, "crop_size": 48, "resample": 3}
    (tmp_path / "old" / "preprocessor_config.json").write_text(json.dumps(mean_std | does | extractor))
    old = replace(clip, path=str(tmp_path / "old"))
    inputs, model, tokenizer = (
        reference_image_inputs(old),
        reference_model(old),
        AutoTokenizer.from_pretrained(old.path),
    )
    images = tokenized(PatchTokenizer(PatchConfig(), old), [Image(p) for p in pictures])
    texts = tokenized(TextTokenizer(TextTokenizerConfig(kind="text"), old), [Text(t) for t in TEXTS])
    (seen,) = runs(lambda n: encoder(old, "image", PatchConfig(), batch_size=n), images, [100])
    (read,) = runs(lambda n: encoder(old, "text", TextTokenizerConfig(kind="text"), batch_size=n), texts, [100])
    with torch.inference_mode():
        for ours, picture in zip(seen, pictures, strict=True):
            same(ours.pooled, model.get_image_features(**inputs(picture)).pooler_output[0])
        for ours, text in zip(read, TEXTS, strict=True):
            one = tokenizer([text], truncation=True, return_tensors="pt")
            same(ours.pooled, model.get_text_features(**one).pooler_output[0])


def test_towers_share_a_space_and_only_one_is_loaded(clip: Checkpoint) -> None:
    image, text = encoder(clip, "image", PatchConfig()), encoder(clip, "text", TextTokenizerConfig(kind="text"))
    video = encoder(clip, "video", FrameConfig())
    specs = [made.spec() for made in (image, text, video)]
    assert {spec.space for spec in specs} == {f"clip:{clip.weights_sha256()[:12]}"}
    assert [(s.dim, s.token_dim, s.normalized) for s in specs] == [(24, 48, True), (24, 32, True), (24, 24, True)]
    assert [spec.processor.split()[0] for spec in specs] == [
        "CLIPImageProcessor",
        "CLIPTokenizer",
        "CLIPImageProcessor",
    ]
    for made in (image, text, video):
        made.setup()
    assert image.model is video.model
    assert image.model is not text.model
    assert image.model.text_model is None
    assert text.model.vision_model is None


def test_bfloat16_runs_and_stays_near(clip: Checkpoint, pictures: list[np.ndarray]) -> None:
    images = tokenized(PatchTokenizer(PatchConfig(), clip), [Image(p) for p in pictures[:3]])
    texts = tokenized(TextTokenizer(TextTokenizerConfig(kind="text"), clip), [Text(t) for t in TEXTS])
    for modality, tokenizer, rows in (
        ("image", PatchConfig(), images),
        ("text", TextTokenizerConfig(kind="text"), texts),
    ):
        (exact,) = runs(lambda n, m=modality, t=tokenizer: encoder(clip, m, t), rows, [3])
        (rough,) = runs(lambda n, m=modality, t=tokenizer: encoder(clip, m, t, dtype="bfloat16"), rows, [3])
        for a, b in zip(exact, rough, strict=True):
            same(b.pooled, a.pooled, 0.1)
            assert not np.array_equal(a.pooled, b.pooled)


def test_errors_name_the_config_field(clip: Checkpoint, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    def error(made: ClipEncoder) -> str:
        with pytest.raises(ConfigError) as caught:
            made.check("features.f")
        return str(caught.value)

    assert error(encoder(checkpoints["siglip"], "image", PatchConfig())).startswith("features.f.encoder.checkpoint")
    assert error(encoder(clip, "text", PatchConfig())).startswith("features.f.tokenizer.kind: 'patch'")
    assert error(encoder(clip, "image", TextTokenizerConfig(kind="text"))).startswith(
        "features.f.tokenizer.kind: 'text'"
    )
    assert error(encoder(clip, "audio", PatchConfig())).startswith("features.f.modality: 'audio'")
    shutil.copytree(clip.path, tmp_path / "bare")
    (tmp_path / "bare" / "processor_config.json").unlink()
    (tmp_path / "bare" / "tokenizer.json").unlink()
    bare = replace(clip, path=str(tmp_path / "bare"))
    assert "no image processor" in error(encoder(bare, "image", PatchConfig()))
    assert "no tokenizer" in error(encoder(bare, "text", TextTokenizerConfig(kind="text")))
