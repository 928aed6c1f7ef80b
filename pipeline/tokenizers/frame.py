"""Tokenizes videos into frames: one token or one patch grid per frame. Image encoders encode them one by one."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, FramesRequest, Media, Modality
from pipeline.tokenizers._shared.frame_sampling import SamplingConfig, UniformConfig
from pipeline.tokenizers._shared.geometry import PixelTokenizerConfig, centre_square, check_geometry
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_frame_processor


class FrameConfig(PixelTokenizerConfig):
    """Config of the tokenizer that turns a video into T frames."""

    kind: Literal["frame"] = "frame"
    tokens: Literal["frame", "patch"] = "frame"
    """Tokens of the feature. ``frame``: one vector per frame, grid (T, 1, 1). ``patch``: one patch grid per frame, grid
    (T, H, W)."""
    sampling: SamplingConfig = UniformConfig()


class FrameTokenizer:
    """Video window -> pixels of T frames.

    ``inputs``: ``pixels`` [T, C, H, W] uint8, or other output of the checkpoint's processor for the frames, T first
    (Gemma: ``pixels`` [T, n, P*P*C] and ``spatial_shape`` [T, 2]). ``times_s`` [T]: the frames' presentation times.
    """

    modality: Modality = "video"

    def __init__(self, config: FrameConfig, checkpoint: Checkpoint | None) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.processor: PixelProcessor | None = None

    def check(self, where: str) -> None:
        needed = ("size", "patch_size") if self.config.tokens == "patch" else ("size",)
        check_geometry(self.config, self.checkpoint, where, *needed)
        if self.checkpoint is not None:
            load_frame_processor(self.checkpoint)

    def request(self) -> FramesRequest:
        return FramesRequest(self.config.sampling.sampling())

    def setup(self) -> None:
        if self.checkpoint is not None:
            self.processor = load_frame_processor(self.checkpoint)

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Frames)
        if not len(media.pixels):
            raise SampleError("empty", "no frame in the window")
        times = np.asarray(media.times_s, np.float64)
        if self.processor is None:
            assert self.config.size is not None
            return ModelInputs({"pixels": np.stack([centre_square(f, self.config.size) for f in media.pixels])}, times)
        return ModelInputs(self.processor.frames(media.pixels), times)
