"""Tokenizes videos into blocks of tubelet x P x P pixels, for models that process all frames of a window together."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Frames, FramesRequest, Media, Modality
from pipeline.tokenizers._shared.frame_sampling import UniformConfig
from pipeline.tokenizers._shared.geometry import PixelTokenizerConfig, centre_square, check_geometry
from pipeline.tokenizers.base import ModelInputs, missing
from pipeline.tokenizers.pixel_processor import PixelProcessor, load_processor


class TubeletConfig(PixelTokenizerConfig):
    """Config of the tokenizer that turns a video into (T / tubelet_size) x H x W blocks."""

    kind: Literal["tubelet"] = "tubelet"
    sampling: UniformConfig | None = None
    """null: as many frames as in the training of the checkpoint's model, at equal distances in the window."""
    tubelet_size: int | None = Field(default=None, ge=1, le=4096)
    """Frames per block. Only without a checkpoint; with one, the model decides."""


class TubeletTokenizer:
    """Video window -> pixels of T frames.

    ``inputs``: ``pixels`` [T, C, H, W] uint8. ``times_s`` [T]: the frames' presentation times.
    """

    modality: Modality = "video"

    def __init__(self, config: TubeletConfig, checkpoint: Checkpoint | None) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.processor: PixelProcessor | None = None

    def check(self, where: str) -> None:
        check_geometry(self.config, self.checkpoint, where, "size", "patch_size", "tubelet_size")
        frames, tubelet = self.frames, self.tubelet_size
        if frames is None:
            raise ConfigError(f"{where}.sampling", "not set", missing("sampling.frames"))
        if tubelet is None:
            assert self.checkpoint is not None
            raise ConfigError(
                self.checkpoint.where,
                f"a {self.checkpoint.model_type!r} model has no tubelets",
                "give a checkpoint of a video model, or tokenizer.kind: frame",
            )
        if frames % tubelet:
            raise ConfigError(f"{where}.sampling.frames", str(frames), f"a multiple of the tubelet size {tubelet}")
        if self.checkpoint is not None:
            load_processor(self.checkpoint, video=True)

    @property
    def frames(self) -> int | None:
        """Frames per window; None if undefined."""
        return self.config.sampling.frames if self.config.sampling else self._model_shape[0]

    @property
    def tubelet_size(self) -> int | None:
        """Frames per block; None if undefined."""
        return self.config.tubelet_size or self._model_shape[1]

    @cached_property
    def _model_shape(self) -> tuple[int | None, int | None]:
        return video_shape(self.checkpoint) if self.checkpoint else (None, None)

    def request(self) -> FramesRequest:
        frames = self.frames
        assert frames is not None
        return FramesRequest(UniformConfig(frames=frames).sampling())

    def setup(self) -> None:
        if self.checkpoint is not None:
            self.processor = load_processor(self.checkpoint, video=True)

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Frames)
        if len(media.pixels) != self.frames:
            raise SampleError("empty", f"{len(media.pixels)} frames in the window, {self.frames} needed")
        times = np.asarray(media.times_s, np.float64)
        if self.processor is None:
            assert self.config.size is not None
            return ModelInputs({"pixels": np.stack([centre_square(f, self.config.size) for f in media.pixels])}, times)
        return ModelInputs({"pixels": self.processor.video(media.pixels)}, times)


def video_shape(checkpoint: Checkpoint) -> tuple[int | None, int | None]:
    """Frames and tubelet size of the checkpoint's model; (None, None) if it is not a video model."""
    config = checkpoint.model_config()
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return frames, getattr(config, "tubelet_size", None)
