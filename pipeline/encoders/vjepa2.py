"""V-JEPA 2: a video transformer over tubelets, any number of frames. Source: https://arxiv.org/abs/2506.09985"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.pixels import Size, pair
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig
from pipeline.encoders._shared.tubelets import TubeletEncoder

if TYPE_CHECKING:
    import torch


class VJepa2Config(TransformersEncoderConfig):
    """``checkpoint`` has model_type vjepa2."""

    kind: Literal["vjepa2"] = "vjepa2"
    pool: Literal["mean"] = "mean"
    """The window's vector is the mean of all tokens."""


class VJepa2Encoder(TubeletEncoder):
    """Tokens: the encoder's ``last_hidden_state``, time first. The predictor is not run."""

    model_types = ("vjepa2",)

    def check(self, where: str) -> None:
        super().check(where)
        tubelet = self.model_config().tubelet_size
        if self.tokenizer.sampling and self.tokenizer.sampling.frames % tubelet:
            raise ConfigError(
                f"{where}.tokenizer.sampling.frames",
                str(self.tokenizer.sampling.frames),
                f"a multiple of the tubelet size {tubelet}",
            )

    def picture_size(self) -> Size | None:
        """``crop_size``, because positions are numbered on its grid: another size runs, with wrong positions."""
        return pair(self.model_config().crop_size)

    def load(self) -> torch.nn.Module:
        from transformers import VJEPA2Model

        model: torch.nn.Module = self.from_pretrained(VJEPA2Model, unused=("predictor.",))
        return model

    def last_hidden_state(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model.get_vision_features(pixels)
        return hidden
