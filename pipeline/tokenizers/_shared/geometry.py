"""Size of pictures and patches for an encoder without a checkpoint."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.tokenizers.base import missing


class PixelTokenizerConfig(BaseModel):
    """Geometry for an encoder without a checkpoint (``raw``). With a checkpoint, its processor decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(default=None, ge=1, le=8192)
    """Pixels. The shorter edge is resized to it, and the centre ``size`` x ``size`` is cropped."""
    patch_size: int | None = Field(default=None, ge=1, le=8192)
    """Pixels on the edge of a patch."""


def centre_square(picture: np.ndarray, size: int) -> np.ndarray:
    """[H, W, 3] uint8 -> [3, size, size] uint8: resizes the shorter edge to ``size`` (bicubic) and crops the centre."""
    from PIL import Image

    height, width = picture.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = Image.fromarray(picture).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def check_geometry(config: PixelTokenizerConfig, checkpoint: Checkpoint | None, where: str, *needed: str) -> None:
    """Checks that either the config or a checkpoint defines the geometry, not both.

    Args:
        where: the tokenizer's path in the config.
        needed: fields that must be set without a checkpoint.

    Raises:
        ConfigError: a field is missing, is set although there is a checkpoint, or does not divide ``size``.
    """
    for name in needed:
        value = getattr(config, name)
        if checkpoint is None and value is None:
            raise ConfigError(f"{where}.{name}", "not set", missing(name))
    for name in ("size", "patch_size", "tubelet_size"):
        value = getattr(config, name, None)
        if checkpoint is not None and value is not None:
            raise ConfigError(f"{where}.{name}", str(value), "leave it out: the checkpoint's own processor decides")
    if config.size is not None and config.patch_size is not None and config.size % config.patch_size:
        raise ConfigError(
            f"{where}.patch_size", str(config.patch_size), f"a divisor of size {config.size}, so that no pixel is lost"
        )
