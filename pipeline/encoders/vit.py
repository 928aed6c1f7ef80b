"""Image encoders: ViT, DINOv2 (with and without registers), DINOv3.

Sources: https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2304.07193, https://arxiv.org/abs/2309.16588,
https://arxiv.org/abs/2508.10104
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import ConfigError
from pipeline.encoders._shared.pictures import PictureConfig, PictureEncoder, VisionOutput
from pipeline.encoders._shared.pixels import Size, grid_of, pair
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import EncoderSpec
from pipeline.tokenizers.pixel_processor import load_processor

if TYPE_CHECKING:
    import torch


class VitConfig(PictureConfig):
    """``checkpoint`` has model_type vit, dinov2, dinov2_with_registers or dinov3_vit."""

    kind: Literal["vit"] = "vit"
    pool: Literal["cls", "mean", "pooler"] = "cls"
    """The picture's vector. ``cls``: the class token after the last norm. ``mean``: the mean of the patch tokens.
    ``pooler``: the model's pooler (in DINO models the class token)."""


class VitEncoder(PictureEncoder):
    """Tokens: ``last_hidden_state`` of the patches. Prefix: class token, then register tokens."""

    model_types = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
    config: VitConfig

    def check(self, where: str) -> None:
        super().check(where)
        pooler = self.config.pool == "pooler" and self.checkpoint.model_type == "vit"
        if pooler and not any("pooler." in name for name in _weight_names(self.checkpoint)):
            raise ConfigError(
                f"{where}.encoder.pool",
                f"'pooler', which {self.checkpoint.name!r} was saved without",
                "one of 'cls', 'mean'",
            )

    def picture_size(self) -> Size | None:
        config = self.model_config()
        return pair(config.image_size) if config.model_type == "vit" else None

    def prefix_length(self) -> int:
        return 1 + int(getattr(self.model.config, "num_register_tokens", 0))

    def spec(self) -> EncoderSpec:
        config = self.model_config()
        dim = config.hidden_size
        if self.config.pool == "pooler":
            dim = getattr(config, "pooler_output_size", None) or dim
        return EncoderSpec(
            dim=dim,
            token_dim=dim if self.per_frame else config.hidden_size,
            space=space_id(self.checkpoint, self.config.pool),
            normalized=self.normalized,
            native_dtype=native_dtype(self.checkpoint),
            model_type=config.model_type,
            processor=load_processor(self.checkpoint).name,
        )

    def load(self) -> torch.nn.Module:
        from transformers import AutoModel

        # A ViT saved without a pooler would get one with random weights.
        options = {"add_pooling_layer": self._has_pooler} if self.checkpoint.model_type == "vit" else {}
        model: torch.nn.Module = self.from_pretrained(AutoModel, unused=("embeddings.mask_token",), **options)
        return model

    @property
    def _has_pooler(self) -> bool:
        return self.config.pool == "pooler"

    def load_key(self) -> tuple[object, ...]:
        return (super().load_key(), self._has_pooler)

    def forward_images(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        pixels = self.finish([picture["pixels"] for picture in pictures])
        out = self.model(pixel_values=pixels)
        hidden = out.last_hidden_state
        if self.config.pool == "cls":
            pooled = hidden[:, 0]
        elif self.config.pool == "mean":
            pooled = hidden[:, self.prefix_length() :].float().mean(dim=1)
        else:
            pooled = out.pooler_output
        grid = grid_of(pixels.shape[-2:], self.model.config.patch_size)
        return self.vision_output(pooled, hidden, [grid] * len(pictures), want_hidden)


def _weight_names(checkpoint: Checkpoint) -> list[str]:
    """Names of the tensors in the checkpoint's safetensors files."""
    from safetensors import safe_open

    names: list[str] = []
    for file in sorted(os.listdir(checkpoint.path)):
        if file.endswith(".safetensors"):
            with safe_open(os.path.join(checkpoint.path, file), framework="numpy") as tensors:
                names += tensors.keys()
    return names
