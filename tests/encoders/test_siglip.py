"""SigLIP and SigLIP 2 NaFlex, both towers, against transformers, one sample at a time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Frames, Image, Text
from pipeline.encoders.siglip import SiglipConfig, SiglipEncoder
from pipeline.tokenizers.base import ModelInputs
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

NAMES = ["siglip", "siglip2"]


def encoder(checkpoint: Checkpoint, modality: str, tokenizer: object, **options: object) -> SiglipEncoder:
    return SiglipEncoder(SiglipConfig(checkpoint=checkpoint.path, **options), checkpoint, modality, tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_images_equal_the_reference(name: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]) -> None:
    checkpoint = checkpoints[name]
    inputs, model = reference_image_inputs(checkpoint), reference_model(checkpoint)
    outs, grids = [], []
    for picture in pictures:
        one = inputs(picture)
        with torch.inference_mode():
            outs.append(model.get_image_features(**one))
        grids.append(tuple(one["spatial_shapes"][0].tolist()) if name == "siglip2" else (3, 3))
    assert_distinct([out.pooler_output[0] for out in outs])
    if name == "siglip2":
        assert len(set(grids)) > 3  # pictures keep their shapes
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoint), [Image(p) for p in pictures])
    assert all(row.inputs["pixels"].dtype == np.uint8 for row in rows)
    for done in runs(lambda n: encoder(checkpoint, "image", PatchConfig(), batch_size=n), rows):
        for ours, out, (height, width) in zip(done, outs, grids, strict=True):
            same(ours.pooled, out.pooler_output[0])
            same(ours.tokens, out.last_hidden_state[0, : height * width])
            assert ours.grid == (1, height, width)
            assert ours.prefix_tokens.shape == (0, 48)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", ["frame", "patch"])
def test_videos_pool_unit_vectors_of_frames(
    name: str, tokens: str, checkpoints: dict[str, Checkpoint], clips: list[Frames]
) -> None:
    checkpoint = checkpoints[name]
    inputs, model = reference_image_inputs(checkpoint), reference_model(checkpoint)
    tokenizer = FrameConfig(tokens=tokens)
    rows = tokenized(FrameTokenizer(tokenizer, checkpoint), clips)
    made = list(runs(lambda n: encoder(checkpoint, "video", tokenizer, batch_size=n), rows, [1, 5, 100]))
    for i, video in enumerate(clips):
        with torch.inference_mode():
            outs = [model.get_image_features(**inputs(f)) for f in video.pixels]
        vectors = torch.cat([out.pooler_output for out in outs])
        for done in made:
            same(done[i].pooled, torch.nn.functional.normalize(vectors, dim=1).mean(0))
            np.testing.assert_array_equal(done[i].times_s, video.times_s)
            if tokens == "frame":
                same(done[i].tokens, vectors)
            else:
                _, height, width = done[i].grid
                same(done[i].tokens, torch.cat([out.last_hidden_state[0, : height * width] for out in outs]))


@pytest.mark.parametrize("name", NAMES)
def test_texts_equal_the_reference(name: str, checkpoints: dict[str, Checkpoint]) -> None:
    """``siglip`` pads on the right without a mask, ``siglip2`` on the left with one, as their tokenizers say."""
    from transformers import AutoTokenizer

    checkpoint = checkpoints[name]
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint.path), reference_model(checkpoint)
    rows = tokenized(TextTokenizer(TextTokenizerConfig(kind="text"), checkpoint), [Text(t) for t in TEXTS])
    outs, places, ids = [], [], []
    for text in TEXTS:
        one = tokenizer([text], padding="max_length", truncation=True, max_length=32, return_tensors="pt")
        bare = tokenizer(text, truncation=True, max_length=32)["input_ids"]
        assert ("attention_mask" in one) == (name == "siglip2")
        with torch.inference_mode():
            outs.append(model.get_text_features(**one))
        start = 32 - len(bare) if name == "siglip2" else 0
        places.append(slice(start, start + len(bare) - 1))  # the last is end of text
        ids.append(bare[:-1])
    assert_distinct([out.pooler_output[0] for out in outs])
    for done in runs(lambda n: encoder(checkpoint, "text", TextTokenizerConfig(kind="text"), batch_size=n), rows):
        for ours, out, place, own in zip(done, outs, places, ids, strict=True):
            same(ours.pooled, out.pooler_output[0])
            same(ours.tokens, out.last_hidden_state[0, place])
            np.testing.assert_array_equal(ours.token_ids, own)
            assert ours.grid == (len(own), 1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_too_long_fails_alone(name: str, checkpoints: dict[str, Checkpoint]) -> None:
    short, long = (
        ModelInputs({"input_ids": np.full(n, 7, np.int32), "special_mask": np.zeros(n, np.uint8)}) for n in (5, 33)
    )
    made = encoder(checkpoints[name], "text", TextTokenizerConfig(kind="text"))
    made.setup()
    first, second = made.encode([long, short], True)
    assert isinstance(first, SampleError)
    assert first.kind == "limit"
    assert not isinstance(second, SampleError)
    assert len(second.tokens) == 5


@pytest.mark.parametrize("name", NAMES)
def test_spec_and_mistakes(name: str, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    checkpoint = checkpoints[name]
    image = encoder(checkpoint, "image", PatchConfig()).spec()
    text = encoder(checkpoint, "text", TextTokenizerConfig(kind="text")).spec()
    assert image.space == text.space == f"{name}:{checkpoint.weights_sha256()[:12]}"
    assert (image.dim, image.token_dim, text.dim, text.token_dim) == (48, 48, 48, 32)
    assert image.normalized
    assert text.normalized
    with pytest.raises(ConfigError, match=r"features\.f\.encoder\.checkpoint: 'vit'"):
        encoder(checkpoints["vit"], "image", PatchConfig()).check("features.f")
    with pytest.raises(ConfigError, match=r"features\.f\.tokenizer\.kind"):
        encoder(checkpoint, "video", PatchConfig()).check("features.f")
    shutil.copytree(checkpoint.path, tmp_path / "bare")
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / "bare" / file).unlink()
    bare = replace(checkpoint, path=str(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="no tokenizer"):
        encoder(bare, "text", TextTokenizerConfig(kind="text")).check("features.f")
    with pytest.raises(ConfigError, match="no image processor that loads"):
        encoder(bare, "image", PatchConfig()).check("features.f")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_runs_and_stays_near(
    name: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]
) -> None:
    checkpoint = checkpoints[name]
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoint), [Image(p) for p in pictures[:3]])
    (exact,) = runs(lambda n: encoder(checkpoint, "image", PatchConfig()), rows, [3])
    (rough,) = runs(lambda n: encoder(checkpoint, "image", PatchConfig(), dtype="bfloat16"), rows, [3])
    for a, b in zip(exact, rough, strict=True):
        same(b.tokens, a.tokens, 0.1)
        assert not np.array_equal(a.tokens, b.tokens)
