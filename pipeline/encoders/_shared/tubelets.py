"""Base class of encoders of video clips, whose tokens are tubelets: blocks of several frames x P x P pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pipeline.core.errors import SampleError
from pipeline.encoders._shared.device import download
from pipeline.encoders._shared.pixels import PixelEncoder, grid_of
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.pixel_processor import load_processor

if TYPE_CHECKING:
    import torch


class TubeletEncoder(PixelEncoder):
    """Encoder of video clips. A family implements ``last_hidden_state``. Pooled: the mean of all tokens."""

    modalities = ("video",)
    tokenizer_kinds = ("tubelet",)
    kinds: ClassVar[Mapping[str, str]] = {"video": "tubelet"}
    video_processor = True

    @abstractmethod
    def last_hidden_state(self, pixels: torch.Tensor) -> torch.Tensor:
        """Frames [B, T, C, H, W] -> hidden states [B, N, d], N = T / tubelet x H / P x W / P, in grid order."""

    def spec(self) -> EncoderSpec:
        config = self.model_config()
        return EncoderSpec(
            dim=config.hidden_size,
            token_dim=config.hidden_size,
            space=space_id(self.checkpoint, "mean"),
            normalized=False,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=load_processor(self.checkpoint, video=True).name,
        )

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        model = self.model.config
        pixels = self.finish([row.inputs["pixels"] for row in rows])
        height, width = grid_of(pixels.shape[-2:], model.patch_size)
        hidden = self.last_hidden_state(pixels).float()
        pooled = download(hidden.mean(dim=1))
        tokens = download(hidden, self.token_dtype) if want_tokens else None
        done: list[Encoded | SampleError] = []
        for i, row in enumerate(rows):
            times = None if row.times_s is None else row.times_s[:: model.tubelet_size]
            grid = (pixels.shape[1] // model.tubelet_size, height, width)
            own = None if tokens is None else tokens[i]
            done.append(Encoded(pooled[i], own, None if own is None else own[:0], grid=grid, times_s=times))
        return done
