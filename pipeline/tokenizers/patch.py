"""Tokenizes images into one grid of patches, with the geometry of the checkpoint's processor."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Image, ImageRequest, Media, Modality
from pipeline.tokenizers._shared.geometry import PixelTokenizerConfig, centre_square, check_geometry
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_processor


class PatchConfig(PixelTokenizerConfig):
    """Config of the tokenizer that turns an image into one grid of patches."""

    kind: Literal["patch"] = "patch"


class PatchTokenizer:
    """Image -> pixels.

    ``inputs``: ``pixels`` [C, H, W] uint8, or other output of the checkpoint's image processor for one image (NaFlex:
    ``pixels`` [n, P*P*C] uint8 and ``spatial_shape`` [2] int32).
    """

    modality: Modality = "image"

    def __init__(self, config: PatchConfig, checkpoint: Checkpoint | None) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.processor: PixelProcessor | None = None

    def check(self, where: str) -> None:
        check_geometry(self.config, self.checkpoint, where, "size", "patch_size")
        if self.checkpoint is not None:
            load_processor(self.checkpoint)

    def request(self) -> ImageRequest:
        return ImageRequest()

    def setup(self) -> None:
        if self.checkpoint is not None:
            self.processor = load_processor(self.checkpoint)

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Image)
        if self.processor is None:
            assert self.config.size is not None
            return ModelInputs({"pixels": centre_square(media.pixels, self.config.size)})
        arrays = self.processor.images([media.pixels])
        return ModelInputs({name: np.asarray(array[0]) for name, array in arrays.items()})
