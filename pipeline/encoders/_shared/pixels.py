"""Base class of encoders that take pixels: loads the checkpoint's processor and normalises pixels on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.device import upload_stacked
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_processor

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]
"""(height, width)"""


class PixelEncoder(TransformersEncoder):
    """Encoder of pixels. ``setup`` loads the checkpoint's image or video processor in addition to the model."""

    kinds: ClassVar[Mapping[str, str]] = {}
    """Modality -> kind of tokenizer that it requires."""
    video_processor = False
    """True if the model's processor is a video processor."""

    @property
    def is_visual(self) -> bool:
        """False for a text tower."""
        return self.modality != "text"

    def check(self, where: str) -> None:
        super().check(where)
        if self.tokenizer.kind != self.kinds[self.modality]:
            raise ConfigError(
                f"{where}.tokenizer.kind",
                f"{self.tokenizer.kind!r}",
                f"for modality {self.modality} this encoder takes {self.kinds[self.modality]!r}",
            )
        if self.is_visual:
            self._check_size(load_processor(self.checkpoint, self.video_processor))

    def _check_size(self, processor: PixelProcessor) -> None:
        """Raises ``ConfigError`` if the processor's output for a non-square picture is not the model's input size."""
        expected = self.picture_size()
        if expected is None:
            return
        picture = np.zeros((50, 70, 3), np.uint8)
        made = processor.video(picture[None]) if self.video_processor else processor.images([picture])["pixels"]
        if made.shape[-2:] != expected:
            raise ConfigError(
                self.checkpoint.where,
                f"the processor of {self.checkpoint.name!r} makes {made.shape[-2]} x {made.shape[-1]} pixels",
                f"its model takes {expected[0]} x {expected[1]}: mend size and crop_size in the processor's JSON",
            )

    @abstractmethod
    def picture_size(self) -> Size | None:
        """The only input size of the model; None if it takes several. Read from JSON."""

    def setup(self) -> None:
        super().setup()
        if self.is_visual:
            self.processor = load_processor(self.checkpoint, self.video_processor)

    def load_key(self) -> Hashable:
        """Image and video features share one model; a text tower is a separate one."""
        return (*self._weights_key(), self.is_visual)

    def finish(self, pixels: Sequence[np.ndarray]) -> torch.Tensor:
        """The tokenizer's pixels as one tensor [B, ...] of the model's dtype, normalised in float32 on the device."""
        return self.processor.finish(upload_stacked(pixels, self.device)).to(self.dtype)


def pair(size: Any) -> Size:
    """A size in a `transformers` config, which is the edge of a square or (height, width), as (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def grid_of(picture: Sequence[int], patch_size: Any) -> Size:
    """Number of patches (H, W) of a picture of size (height, width)."""
    patch = pair(patch_size)
    return int(picture[0]) // patch[0], int(picture[1]) // patch[1]
