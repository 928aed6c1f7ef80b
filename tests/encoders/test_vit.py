"""ViT, DINOv2, DINOv2 with registers, DINOv3 against transformers, one picture at a time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.core.media import Frames, Image
from pipeline.encoders.vit import VitConfig, VitEncoder
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from pipeline.tokenizers.tubelet import TubeletConfig
from tests.encoders.vision_fixtures import (
    assert_distinct,
    reference_image_inputs,
    reference_model,
    runs,
    same,
    tokenized,
)

PREFIX = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 1 + 3, "dinov3": 1 + 4}
GRID = {"vit": (3, 3), "dinov2": (4, 4), "dinov2_with_registers": (4, 4), "dinov3": (3, 3)}


def encoder(checkpoint: Checkpoint, modality: str = "image", tokenizer: object = None, **options: object) -> VitEncoder:
    config = VitConfig(checkpoint=checkpoint.path, **options)
    return VitEncoder(config, checkpoint, modality, tokenizer or PatchConfig())


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("pool", ["cls", "mean", "pooler"])
def test_images_equal_the_reference(
    name: str, pool: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]
) -> None:
    checkpoint, skip = checkpoints[name], PREFIX[name]
    inputs, model = reference_image_inputs(checkpoint), reference_model(checkpoint)
    with torch.inference_mode():
        outs = [model(**inputs(picture)) for picture in pictures]
    pooled = {
        "cls": [out.last_hidden_state[0, 0] for out in outs],
        "mean": [out.last_hidden_state[0, skip:].mean(0) for out in outs],
        "pooler": [out.pooler_output[0] for out in outs],
    }[pool]
    assert_distinct(pooled)
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoint), [Image(p) for p in pictures])
    for done in runs(lambda n: encoder(checkpoint, pool=pool, batch_size=n), rows):
        for ours, out, vector in zip(done, outs, pooled, strict=True):
            same(ours.pooled, vector)
            same(ours.tokens, out.last_hidden_state[0, skip:])
            same(ours.prefix_tokens, out.last_hidden_state[0, :skip])
            assert ours.grid == (1, *GRID[name])
            assert ours.times_s is None


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("tokens", ["frame", "patch"])
def test_videos_equal_the_reference_frame_by_frame(
    name: str, tokens: str, checkpoints: dict[str, Checkpoint], clips: list[Frames]
) -> None:
    checkpoint, skip = checkpoints[name], PREFIX[name]
    clips = [replace(c, pixels=c.pixels[:n], times_s=c.times_s[:n]) for c, n in zip(clips, (8, 5, 1), strict=True)]
    inputs, model = reference_image_inputs(checkpoint), reference_model(checkpoint)
    with torch.inference_mode():
        hidden = [torch.cat([model(**inputs(f)).last_hidden_state for f in clip.pixels]).numpy() for clip in clips]
    tokenizer = FrameConfig(tokens=tokens)
    rows = tokenized(FrameTokenizer(tokenizer, checkpoint), clips)
    pools = {"mean": lambda h: h[:, 0].mean(0), "max": lambda h: h[:, 0].max(0), "first": lambda h: h[0, 0]}
    for pool, over_time in pools.items():
        for done in runs(
            lambda n, p=pool: encoder(checkpoint, "video", tokenizer, temporal_pool=p, batch_size=n), rows
        ):
            for ours, clip, h in zip(done, clips, hidden, strict=True):
                same(ours.pooled, over_time(h))
                np.testing.assert_array_equal(ours.times_s, clip.times_s)
                if tokens == "frame":
                    same(ours.tokens, h[:, 0])
                    assert ours.grid == (len(h), 1, 1)
                else:
                    same(ours.tokens, h[:, skip:].reshape(-1, h.shape[-1]))
                    same(ours.prefix_tokens, h[:, :skip].reshape(-1, h.shape[-1]))
                    assert ours.grid == (len(h), *GRID[name])


def test_bfloat16_runs_and_stays_near(checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]) -> None:
    for name in PREFIX:
        rows = tokenized(PatchTokenizer(PatchConfig(), checkpoints[name]), [Image(p) for p in pictures[:3]])
        (exact,) = runs(lambda n, c=checkpoints[name]: encoder(c, batch_size=n), rows, [3])
        (rough,) = runs(lambda n, c=checkpoints[name]: encoder(c, batch_size=n, dtype="bfloat16"), rows, [3])
        for a, b in zip(exact, rough, strict=True):
            same(b.tokens, a.tokens, 0.1)
            assert not np.array_equal(a.tokens, b.tokens)  # it did compute in bfloat16


def test_without_tokens_none_are_copied(checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]) -> None:
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoints["vit"]), [Image(pictures[0])])
    made = encoder(checkpoints["vit"])
    made.setup()
    (row,) = made.encode(rows, False)
    assert row.tokens is None
    assert row.prefix_tokens is None
    assert row.pooled.shape == (32,)


def test_spec_says_space_and_widths(checkpoints: dict[str, Checkpoint]) -> None:
    digest = checkpoints["dinov3"].weights_sha256()[:12]
    spec = encoder(checkpoints["dinov3"], pool="mean").spec()
    assert (spec.space, spec.normalized) == (f"dinov3_vit:{digest}:mean", False)
    assert (spec.dim, spec.token_dim, spec.native_dtype) == (32, 32, "float32")
    assert spec.processor == "DINOv3ViTImageProcessor (torchvision)"


def _error(made: VitEncoder) -> str:
    with pytest.raises(ConfigError) as caught:
        made.check("features.f")
    return str(caught.value)


def test_errors_name_the_config_field(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    vit = checkpoints["vit"]
    assert _error(encoder(checkpoints["clip"])).startswith("features.f.encoder.checkpoint: 'clip' is of model_type")
    assert _error(encoder(vit, "audio")).startswith("features.f.modality: 'audio'")
    assert _error(encoder(vit, "image", FrameConfig())).startswith("features.f.tokenizer.kind: 'frame'")
    assert _error(encoder(vit, "video", PatchConfig())).startswith("features.f.tokenizer.kind: 'patch'")
    assert _error(encoder(vit, "video", TubeletConfig())).startswith("features.f.tokenizer.kind: 'tubelet'")

    shutil.copytree(vit.path, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    assert "no image processor that loads" in _error(encoder(replace(vit, path=str(tmp_path / "bare"))))

    from transformers import ViTImageProcessor, ViTModel

    shutil.copytree(vit.path, tmp_path / "large")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "large")
    assert "makes 64 x 64 pixels; its model takes 48 x 48" in _error(
        encoder(replace(vit, path=str(tmp_path / "large")))
    )

    shutil.copytree(vit.path, tmp_path / "poolerless")
    ViTModel.from_pretrained(vit.path, add_pooling_layer=False).save_pretrained(tmp_path / "poolerless")
    poolerless = replace(vit, path=str(tmp_path / "poolerless"))
    assert _error(encoder(poolerless, pool="pooler")).startswith("features.f.encoder.pool: 'pooler'")
    encoder(poolerless).check("features.f")


def test_missing_weights_are_never_drawn_at_random(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoints["dinov2"].path, tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    weights = load_file(file)
    del weights["layernorm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"layernorm\.weight"):
        encoder(replace(checkpoints["dinov2"], path=str(tmp_path / "half"))).setup()
