"""A checkpoint's processor, split into geometry and arithmetic, equals transformers' own one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Frames
from pipeline.demo.checkpoints.gemma import write_embedding_gemma2
from pipeline.tokenizers import pixel_processor
from pipeline.tokenizers._shared.geometry import PixelTokenizerConfig, check_geometry
from pipeline.tokenizers.pixel_processor import load_frame_processor, load_processor
from tests.encoders.vision_fixtures import reference_image_inputs

GEOMETRY_FIRST = {"vit": True, "dinov2": True, "dinov3": False, "clip": True, "siglip": True, "siglip2": True}


@pytest.mark.parametrize("name", GEOMETRY_FIRST)
def test_pictures_equal_the_complete_processor(
    name: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]
) -> None:
    processor, reference = load_processor(checkpoints[name]), reference_image_inputs(checkpoints[name])
    assert processor.geometry_first == GEOMETRY_FIRST[name]
    for picture in pictures:
        pixels = processor.images([picture])["pixels"]
        assert pixels.dtype == (np.uint8 if processor.geometry_first else np.float32)
        finished = processor.finish(torch.from_numpy(pixels))
        expected = reference(picture)["pixel_values"][:, : finished.shape[1]]  # without padding patches
        torch.testing.assert_close(finished, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_videos_equal_the_complete_processor(
    name: str, checkpoints: dict[str, Checkpoint], clips: list[Frames]
) -> None:
    from transformers import AutoVideoProcessor

    processor = load_processor(checkpoints[name], video=True)
    reference = AutoVideoProcessor.from_pretrained(checkpoints[name].path)
    for clip in clips:
        finished = processor.finish(torch.from_numpy(processor.video(clip.pixels)))
        (expected,) = reference(clip.pixels, do_sample_frames=False, return_tensors="pt").values()
        torch.testing.assert_close(finished, expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_pictures_of_one_size_are_processed_separately(
    name: str, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they do not fit one call of the processor."""
    processor = load_processor(checkpoints[name])
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), np.uint8))
    together = processor.images(pictures)
    monkeypatch.setattr(pixel_processor, "_MAX_STACKED_BYTES", 2 * pictures[0].nbytes)
    in_parts = processor.images(pictures)
    for key, values in together.items():
        np.testing.assert_array_equal(in_parts[key], values)
        separate = np.concatenate([processor.images([picture])[key] for picture in pictures])
        np.testing.assert_array_equal(separate, values)


def test_the_shape_of_patches_is_height_and_width(checkpoints: dict[str, Checkpoint]) -> None:
    arrays = load_processor(checkpoints["siglip2"]).images([np.zeros((40, 80, 3), np.uint8)])
    (shape,) = arrays["spatial_shape"].tolist()
    assert shape[0] < shape[1]
    assert arrays["pixels"].shape[1] == shape[0] * shape[1]


def test_a_read_only_picture_gives_no_warning(
    checkpoints: dict[str, Checkpoint], recwarn: pytest.WarningsRecorder
) -> None:
    picture = np.zeros((9, 5, 3), np.uint8)
    picture.flags.writeable = False
    load_processor(checkpoints["vit"]).images([picture])
    assert not [w for w in recwarn if "not writable" in str(w.message)]


def test_a_picture_that_would_be_huge_after_resizing_fails(checkpoints: dict[str, Checkpoint]) -> None:
    with pytest.raises(SampleError, match="limit: 1 x 1 x 200000 pixels"):
        load_processor(checkpoints["clip"]).images([np.zeros((1, 200_000, 3), np.uint8)])


def test_frames_get_the_video_processor_of_a_checkpoint_for_all_modalities(
    checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    write_embedding_gemma2(str(tmp_path))
    gemma = Checkpoint(str(tmp_path), "gemma", None, "features.f.encoder.checkpoint")
    assert "VideoProcessor" in load_frame_processor(gemma).name
    assert load_frame_processor(checkpoints["clip"]).name == load_processor(checkpoints["clip"]).name
    frames = np.zeros((3, 40, 60, 3), np.uint8)
    assert len(load_frame_processor(gemma).frames(frames)["pixels"]) == 3


def test_a_checkpoint_without_a_processor_fails(checkpoints: dict[str, Checkpoint]) -> None:
    with pytest.raises(ConfigError, match=r"features\.f\.encoder\.checkpoint: 'vjepa2' has no image processor"):
        load_processor(checkpoints["vjepa2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"t\.size: not set; set size, or"),
        ({"size": 32}, r"t\.patch_size: not set; set patch_size, or"),
        ({"size": 32, "patch_size": 5}, r"t\.patch_size: 5; a divisor of size 32"),
    ],
)
def test_geometry_must_be_defined_without_a_checkpoint(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_geometry(PixelTokenizerConfig(**options), None, "t", "size", "patch_size")


def test_geometry_must_not_be_defined_with_a_checkpoint(checkpoints: dict[str, Checkpoint]) -> None:
    check_geometry(PixelTokenizerConfig(), checkpoints["vit"], "t", "size", "patch_size")
    for name in ("size", "patch_size"):
        with pytest.raises(ConfigError, match=rf"t\.{name}: 32; leave it out"):
            check_geometry(PixelTokenizerConfig(**{name: 32}), checkpoints["vit"], "t")
