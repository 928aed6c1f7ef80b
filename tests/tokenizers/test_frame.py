"""The `frame` tokenizer: every frame as the image processor makes it, with its presentation time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import FpsSampling, Frames, UniformSampling
from pipeline.demo.checkpoints.gemma import write_embedding_gemma2
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from tests.encoders.vision_fixtures import reference_image_inputs, tokenized


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov3", "clip", "siglip", "siglip2"])
def test_frames_equal_the_whole_processor_on_each(
    name: str, checkpoints: dict[str, Checkpoint], clips: list[Frames]
) -> None:
    whole = reference_image_inputs(checkpoints[name])
    tokenizer = FrameTokenizer(FrameConfig(), checkpoints[name])
    for row, clip in zip(tokenized(tokenizer, clips), clips, strict=True):
        finished = tokenizer.processor.finish(torch.from_numpy(row.inputs["pixels"]))
        assert len(finished) == len(clip.pixels)
        np.testing.assert_array_equal(row.times_s, clip.times_s)
        for ours, frame in zip(finished, clip.pixels, strict=True):
            torch.testing.assert_close(ours, whole(frame)["pixel_values"][0][: len(ours)], rtol=0, atol=0)


def test_a_checkpoint_for_all_modalities_uses_its_video_processor_for_frames(
    clips: list[Frames], tmp_path: Path
) -> None:
    """Gemma gives a frame fewer patches than a picture; the padding patches of its processor are left out."""
    from transformers import AutoVideoProcessor

    write_embedding_gemma2(str(tmp_path))
    whole = AutoVideoProcessor.from_pretrained(tmp_path)
    tokenizer = FrameTokenizer(FrameConfig(), Checkpoint(str(tmp_path), "gemma", None, "features.f.encoder"))
    for row, clip in zip(tokenized(tokenizer, clips), clips, strict=True):
        expected = whole(clip.pixels, do_sample_frames=False, return_tensors="pt")
        real = (expected["video_position_ids"][0] >= 0).all(-1)
        assert row.inputs["pixels"].dtype == np.uint8
        finished = tokenizer.processor.finish(torch.from_numpy(row.inputs["pixels"]))
        torch.testing.assert_close(finished, expected["pixel_values_videos"][:, real], rtol=0, atol=0)
        x, y = (expected["video_position_ids"][0][real].amax(0) + 1).tolist()
        np.testing.assert_array_equal(row.inputs["spatial_shape"], [[y, x]] * len(clip.pixels))


def test_sampling_becomes_the_request(checkpoints: dict[str, Checkpoint]) -> None:
    def sampling(**options: object) -> object:
        return FrameTokenizer(FrameConfig.model_validate(options), checkpoints["vit"]).request().sampling

    assert sampling() == UniformSampling(8)
    assert sampling(sampling={"kind": "uniform", "frames": 3}) == UniformSampling(3)
    assert sampling(sampling={"kind": "fps", "fps": 2}) == FpsSampling(2.0, 64)
    assert sampling(sampling={"kind": "fps", "fps": 0.5, "max_frames": 9}) == FpsSampling(0.5, 9)
    for wrong in ({"kind": "uniform", "frames": 0}, {"kind": "fps", "fps": 0}, {"kind": "uniform", "fps": 1}):
        with pytest.raises(ValidationError):
            sampling(sampling=wrong)


def test_a_window_without_frames_fails(checkpoints: dict[str, Checkpoint]) -> None:
    tokenizer = FrameTokenizer(FrameConfig(), checkpoints["vit"])
    tokenizer.setup()
    with pytest.raises(SampleError, match="empty"):
        tokenizer.tokenize(Frames(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0)))


def test_without_a_checkpoint(clips: list[Frames]) -> None:
    (row,) = tokenized(FrameTokenizer(FrameConfig(size=16, patch_size=8, tokens="patch"), None), clips[:1])
    assert row.inputs["pixels"].shape == (8, 3, 16, 16)
    np.testing.assert_array_equal(row.times_s, clips[0].times_s)
    FrameTokenizer(FrameConfig(size=16), None).check("features.f.tokenizer")
    with pytest.raises(ConfigError, match=r"features\.f\.tokenizer\.size: not set"):
        FrameTokenizer(FrameConfig(), None).check("features.f.tokenizer")
    with pytest.raises(ConfigError, match=r"features\.f\.tokenizer\.patch_size: not set"):
        FrameTokenizer(FrameConfig(size=16, tokens="patch"), None).check("features.f.tokenizer")
