"""CLIP: an image tower and a text tower in one space. Source: https://arxiv.org/abs/2103.00020"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.encoders._shared.pictures import PictureConfig, VisionOutput
from pipeline.encoders._shared.pixels import grid_of
from pipeline.encoders._shared.text import check_tokenizer_files, pad, split, tokenizer_name
from pipeline.encoders._shared.two_towers import TwoTowerEncoder
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs


class ClipConfig(PictureConfig):
    """``checkpoint`` of model_type clip."""

    kind: Literal["clip"] = "clip"


class ClipEncoder(TwoTowerEncoder):
    """Pooled: the projected features. Tokens: the tower's ``last_hidden_state``; prefix: the class token, or
    the start-of-text token."""

    model_types = ("clip",)

    def check(self, where: str) -> None:
        super().check(where)
        if not self.is_visual:
            check_tokenizer_files(self.checkpoint)

    def dims(self) -> tuple[int | None, int]:
        config = self.model_config()
        tower = config.vision_config if self.is_visual else config.text_config
        return config.projection_dim, tower.hidden_size

    def processor_name(self) -> str:
        return tokenizer_name(self.checkpoint)

    def prefix_length(self) -> int:
        return 1

    def forward_images(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        pixels = self.finish([picture["pixels"] for picture in pictures])
        out = self.model.get_image_features(pixel_values=pixels)
        grid = grid_of(pixels.shape[-2:], self.model.config.vision_config.patch_size)
        return self.vision_output(out.pooler_output, out.last_hidden_state, [grid] * len(pictures), want_hidden)

    def forward_text(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        # Any id can pad: the tower is causal, so padding on the right does not change the text's states, and the model
        # uses the first end-of-text token from the left.
        ids, mask = pad(rows, 0, self.device)
        out = self.model.get_text_features(input_ids=ids, attention_mask=mask)
        return list(split(rows, out.pooler_output, out.last_hidden_state if want_tokens else None))
