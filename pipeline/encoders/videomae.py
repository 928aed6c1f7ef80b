"""VideoMAE: a video transformer over tubelets of a fixed number of frames. Source: https://arxiv.org/abs/2203.12602"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.pixels import Size, pair
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig
from pipeline.encoders._shared.tubelets import TubeletEncoder

if TYPE_CHECKING:
    import torch


class VideoMaeConfig(TransformersEncoderConfig):
    """``checkpoint`` has model_type videomae."""

    kind: Literal["videomae"] = "videomae"
    pool: Literal["mean"] = "mean"
    """The window's vector is the mean of all tokens."""


class VideoMaeEncoder(TubeletEncoder):
    """Tokens: ``last_hidden_state``, time first."""

    model_types = ("videomae",)

    def check(self, where: str) -> None:
        super().check(where)
        frames = self.tokenizer.sampling.frames if self.tokenizer.sampling else None
        fixed = self.model_config().num_frames
        if frames not in (None, fixed):
            raise ConfigError(f"{where}.tokenizer.sampling.frames", str(frames), f"the model takes {fixed} frames")

    def picture_size(self) -> Size | None:
        return pair(self.model_config().image_size)

    def load(self) -> torch.nn.Module:
        from transformers import VideoMAEModel

        model: torch.nn.Module = self.from_pretrained(VideoMAEModel)
        return model

    def last_hidden_state(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(pixel_values=pixels).last_hidden_state
        return hidden
