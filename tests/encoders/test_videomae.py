"""videomae against transformers' own video processor and model, one clip at a time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.core.media import Frames, UniformSampling
from pipeline.encoders.videomae import VideoMaeConfig, VideoMaeEncoder
from pipeline.tokenizers._shared.frame_sampling import UniformConfig
from pipeline.tokenizers.frame import FrameConfig
from pipeline.tokenizers.tubelet import TubeletConfig, TubeletTokenizer
from tests.encoders.vision_fixtures import assert_distinct, reference_model, runs, same, tokenized


@pytest.fixture
def checkpoint(checkpoints: dict[str, Checkpoint]) -> Checkpoint:
    return checkpoints["videomae"]


def encoder(
    checkpoint: Checkpoint, tokenizer: object = None, modality: str = "video", **options: object
) -> VideoMaeEncoder:
    config = VideoMaeConfig(checkpoint=checkpoint.path, **options)
    return VideoMaeEncoder(config, checkpoint, modality, tokenizer or TubeletConfig())


def reference(checkpoint: Checkpoint, clips: list[Frames]) -> list[torch.Tensor]:
    """Tokens [N, d] of each clip."""
    from transformers import AutoVideoProcessor

    processor, model = AutoVideoProcessor.from_pretrained(checkpoint.path), reference_model(checkpoint)
    with torch.inference_mode():
        return [
            model(**processor(clip.pixels, do_sample_frames=False, return_tensors="pt")).last_hidden_state[0]
            for clip in clips
        ]


def test_clips_equal_the_reference(checkpoint: Checkpoint, clips: list[Frames]) -> None:
    tokens = reference(checkpoint, clips)
    assert_distinct([t.mean(0) for t in tokens])
    tokenizer = TubeletTokenizer(TubeletConfig(), checkpoint)
    assert tokenizer.request().sampling == UniformSampling(8)
    rows = tokenized(tokenizer, clips)
    assert all(row.inputs["pixels"].dtype == np.uint8 for row in rows)
    for done in runs(lambda n: encoder(checkpoint, batch_size=n), rows, [1, 2, 3]):
        for ours, expected, clip in zip(done, tokens, clips, strict=True):
            same(ours.tokens, expected)
            same(ours.pooled, expected.mean(0))
            assert ours.grid == (4, 2, 2)
            assert ours.prefix_tokens.shape == (0, 32)
            np.testing.assert_array_equal(ours.times_s, clip.times_s[[0, 2, 4, 6]])


def test_bfloat16_runs_and_stays_near(checkpoint: Checkpoint, clips: list[Frames]) -> None:
    rows = tokenized(TubeletTokenizer(TubeletConfig(), checkpoint), clips)
    (exact,) = runs(lambda n: encoder(checkpoint), rows, [3])
    (rough,) = runs(lambda n: encoder(checkpoint, dtype="bfloat16"), rows, [3])
    for a, b in zip(exact, rough, strict=True):
        same(b.tokens, a.tokens, 0.1)
        assert not np.array_equal(a.tokens, b.tokens)


def test_spec_and_mistakes(checkpoint: Checkpoint, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    spec = encoder(checkpoint).spec()
    assert (spec.space, spec.normalized) == (f"videomae:{checkpoint.weights_sha256()[:12]}:mean", False)
    assert (spec.dim, spec.token_dim) == (32, 32)

    def error(made: VideoMaeEncoder) -> str:
        with pytest.raises(ConfigError) as caught:
            made.check("features.f")
        return str(caught.value)

    assert error(encoder(checkpoints["vit"])).startswith("features.f.encoder.checkpoint: 'vit' is of model_type 'vit'")
    assert error(encoder(checkpoint, FrameConfig())).startswith("features.f.tokenizer.kind: 'frame'")
    assert error(encoder(checkpoint, modality="image")).startswith("features.f.modality: 'image'")
    seven = TubeletConfig(sampling=UniformConfig(frames=7))
    assert error(encoder(checkpoint, seven)).startswith("features.f.tokenizer.sampling.frames: 7")
    shutil.copytree(checkpoint.path, tmp_path / "bare")
    (tmp_path / "bare" / "video_preprocessor_config.json").unlink()
    assert "no video processor that loads" in error(encoder(replace(checkpoint, path=str(tmp_path / "bare"))))


def test_other_numbers_of_frames_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"features\.f\.tokenizer\.sampling\.frames: 6; the model takes 8 frames"):
        encoder(checkpoint, TubeletConfig(sampling=UniformConfig(frames=6))).check("features.f")
    encoder(checkpoint, TubeletConfig(sampling=UniformConfig(frames=8))).check("features.f")


def test_a_checkpoint_with_an_image_processor_gives_the_same(
    checkpoint: Checkpoint, clips: list[Frames], tmp_path: Path
) -> None:
    """Older VideoMAE checkpoints name VideoMAEImageProcessor in preprocessor_config.json."""
    from transformers import VideoMAEImageProcessor

    folder = tmp_path / "old"
    shutil.copytree(checkpoint.path, folder)
    (folder / "video_preprocessor_config.json").unlink()
    processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    old = replace(checkpoint, path=str(folder))
    model = reference_model(checkpoint)
    rows = tokenized(TubeletTokenizer(TubeletConfig(), old), clips)
    (done,) = runs(lambda n: encoder(old), rows, [3])
    for ours, clip in zip(done, clips, strict=True):
        with torch.inference_mode():
            same(ours.tokens, model(**processor(list(clip.pixels), return_tensors="pt")).last_hidden_state[0])
