"""The `patch` tokenizer: the checkpoint's own geometry, bit for bit; plain geometry without a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.core.media import Image, ImageRequest
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from tests.encoders.vision_fixtures import reference_image_inputs, tokenized

DTYPES = {"vit": "uint8", "dinov2": "uint8", "dinov2_with_registers": "uint8", "dinov3": "float32", "clip": "uint8"}
DTYPES |= {"siglip": "uint8", "siglip2": "uint8"}


@pytest.mark.parametrize("name", DTYPES)
def test_geometry_then_arithmetic_is_the_whole_processor(
    name: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]
) -> None:
    """What the encoder's device is given equals ``pixel_values`` exactly; DINOv3 resizes floats, so floats travel."""
    whole = reference_image_inputs(checkpoints[name])
    tokenizer = PatchTokenizer(PatchConfig(), checkpoints[name])
    rows = tokenized(tokenizer, [Image(p) for p in pictures])
    for row, picture in zip(rows, pictures, strict=True):
        expected = whole(picture)
        assert row.inputs["pixels"].dtype == DTYPES[name]
        finished = tokenizer.processor.finish(torch.from_numpy(row.inputs["pixels"]))
        reference = expected["pixel_values"][0]
        if name == "siglip2":
            real = int(expected["pixel_attention_mask"].sum())
            reference = reference[:real]
            np.testing.assert_array_equal(row.inputs["spatial_shape"], expected["spatial_shapes"][0])
            assert int(np.prod(row.inputs["spatial_shape"])) == real
        torch.testing.assert_close(finished, reference, rtol=0, atol=0)


def test_request_and_untimed(checkpoints: dict[str, Checkpoint]) -> None:
    tokenizer = PatchTokenizer(PatchConfig(), checkpoints["vit"])
    assert tokenizer.request() == ImageRequest()
    assert tokenized(tokenizer, [Image(np.zeros((9, 5, 3), np.uint8))])[0].times_s is None


@pytest.mark.parametrize("index", range(10))
def test_without_a_checkpoint_the_config_says_the_geometry(index: int, pictures: list[np.ndarray]) -> None:
    """The same as resizing the whole picture so that its shorter edge has ``size`` pixels, then cutting."""
    import PIL.Image

    picture = pictures[index]
    height, width = picture.shape[:2]
    scale = 48 / min(height, width)
    if (height * scale) % 2 or (width * scale) % 2:  # the centre lies between pixels: cut the source to fit
        side = min(height, width)
        picture = picture[:side, :side]
        height, width = picture.shape[:2]
    size = (round(width * scale), round(height * scale))
    whole = np.asarray(PIL.Image.fromarray(picture).resize(size, PIL.Image.Resampling.BICUBIC))
    top, left = (whole.shape[0] - 48) // 2, (whole.shape[1] - 48) // 2
    expected = whole[top : top + 48, left : left + 48].transpose(2, 0, 1)
    (row,) = tokenized(PatchTokenizer(PatchConfig(size=48, patch_size=16), None), [Image(picture)])
    pixels = row.inputs["pixels"]
    assert (pixels.shape, pixels.dtype) == ((3, 48, 48), np.uint8)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PatchConfig(), r"features\.f\.tokenizer\.size: not set; set size, or"),
        (PatchConfig(size=32), r"features\.f\.tokenizer\.patch_size: not set; set patch_size, or"),
        (PatchConfig(size=32, patch_size=5), r"features\.f\.tokenizer\.patch_size: 5; a divisor of size 32"),
    ],
)
def test_mistakes_without_a_checkpoint(config: PatchConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PatchTokenizer(config, None).check("features.f.tokenizer")


def test_mistakes_with_a_checkpoint(checkpoints: dict[str, Checkpoint]) -> None:
    with pytest.raises(ConfigError, match=r"features\.f\.tokenizer\.size: 32; leave it out"):
        PatchTokenizer(PatchConfig(size=32), checkpoints["vit"]).check("features.f.tokenizer")
    with pytest.raises(ConfigError, match=r"features\.f\.encoder\.checkpoint: 'vjepa2' has no image processor"):
        PatchTokenizer(PatchConfig(), checkpoints["vjepa2"]).check("features.f.tokenizer")
