"""The `tubelet` tokenizer: clips as the video processor makes them; frames and tubelets from the checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Frames, UniformSampling
from pipeline.tokenizers._shared.frame_sampling import UniformConfig
from pipeline.tokenizers.tubelet import TubeletConfig, TubeletTokenizer
from tests.encoders.vision_fixtures import tokenized


@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_clips_equal_the_whole_processor(name: str, checkpoints: dict[str, Checkpoint], clips: list[Frames]) -> None:
    from transformers import AutoVideoProcessor

    whole = AutoVideoProcessor.from_pretrained(checkpoints[name].path)
    tokenizer = TubeletTokenizer(TubeletConfig(), checkpoints[name])
    assert tokenizer.request().sampling == UniformSampling(8)  # the checkpoint's own number
    for row, clip in zip(tokenized(tokenizer, clips), clips, strict=True):
        assert row.inputs["pixels"].dtype == np.uint8
        (expected,) = (value for key, value in whole(clip.pixels, do_sample_frames=False, return_tensors="pt").items())
        finished = tokenizer.processor.finish(torch.from_numpy(row.inputs["pixels"]))
        torch.testing.assert_close(finished, expected[0], rtol=0, atol=0)
        np.testing.assert_array_equal(row.times_s, clip.times_s)


def test_another_number_of_frames_fails(checkpoints: dict[str, Checkpoint]) -> None:
    tokenizer = TubeletTokenizer(TubeletConfig(), checkpoints["videomae"])
    tokenizer.setup()
    with pytest.raises(SampleError, match="5 frames in the window, 8 needed"):
        tokenizer.tokenize(Frames(np.zeros((5, 4, 4, 3), np.uint8), np.arange(5.0)))


def test_without_a_checkpoint(clips: list[Frames]) -> None:
    config = TubeletConfig(size=16, patch_size=8, tubelet_size=4, sampling=UniformConfig(frames=8))
    tokenizer = TubeletTokenizer(config, None)
    (row,) = tokenized(tokenizer, clips[:1])
    assert row.inputs["pixels"].shape == (8, 3, 16, 16)
    assert tokenizer.request().sampling == UniformSampling(8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TubeletConfig(), r"features\.f\.tokenizer\.size: not set"),
        (TubeletConfig(size=16, patch_size=8), r"features\.f\.tokenizer\.tubelet_size: not set"),
        (TubeletConfig(size=16, patch_size=8, tubelet_size=2), r"features\.f\.tokenizer\.sampling: not set"),
        (
            TubeletConfig(size=16, patch_size=8, tubelet_size=3, sampling=UniformConfig(frames=8)),
            r"features\.f\.tokenizer\.sampling\.frames: 8; a multiple of the tubelet size 3",
        ),
    ],
)
def test_mistakes_without_a_checkpoint(config: TubeletConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TubeletTokenizer(config, None).check("features.f.tokenizer")


def test_mistakes_with_a_checkpoint(checkpoints: dict[str, Checkpoint]) -> None:
    cases = [
        ("vjepa2", TubeletConfig(tubelet_size=2), r"features\.f\.tokenizer\.tubelet_size: 2; leave it out"),
        ("vjepa2", TubeletConfig(sampling=UniformConfig(frames=5)), r"features\.f\.tokenizer\.sampling\.frames: 5"),
        ("vit", TubeletConfig(), r"features\.f\.tokenizer\.sampling: not set"),
        ("vit", TubeletConfig(sampling=UniformConfig()), r"features\.f\.encoder\.checkpoint: a 'vit' model has no"),
    ]
    for name, config, message in cases:
        with pytest.raises(ConfigError, match=message):
            TubeletTokenizer(config, checkpoints[name]).check("features.f.tokenizer")
