"""CLIP: a vision and a text tower in one space. https://arxiv.org/abs/2103.00020"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.encoders._pixels import PictureConfig, Seen, grid_of, to_host
from pipeline.encoders._towers import TwoTowerEncoder, seen, words
from pipeline.encoders.base import Encoded
from pipeline.errors import SampleError
from pipeline.tokenizers.base import Prepared


class ClipConfig(PictureConfig):
    """``checkpoint`` of model_type clip."""

    kind: Literal["clip"] = "clip"


class ClipEncoder(TwoTowerEncoder):
    """Pooled: the projected features. Tokens: the tower's ``last_hidden_state``; prefix: the class token, or
    the start-of-text token."""

    model_types = ("clip",)

    def dims(self) -> tuple[int | None, int]:
        config = self.model_config()
        tower = config.vision_config if self.sees else config.text_config
        return config.projection_dim, tower.hidden_size

    def processor_name(self) -> str:
        return str(self.checkpoint.json("tokenizer_config.json").get("tokenizer_class", "CLIPTokenizer"))

    def prefix_length(self) -> int:
        return 1

    def look(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> Seen:
        pixels = self.finish(np.stack([picture["pixels"] for picture in pictures]))
        out = self.model.get_image_features(pixel_values=pixels)
        grid = grid_of(pixels.shape[-2:], self.model.config.vision_config.patch_size)
        return seen(out, [grid] * len(pictures), want_hidden)

    def read(self, rows: Sequence[Prepared], want_tokens: bool) -> list[Encoded | SampleError]:
        import torch

        # the tower is causal: what stands right of a text never reaches it, and its end-of-text token is
        # looked for from the left, so any padding gives the same vectors; repeating the last id needs no table
        longest = max(len(row.inputs["input_ids"]) for row in rows)
        ids = np.stack([np.pad(i := row.inputs["input_ids"], (0, longest - len(i)), mode="edge") for row in rows])
        mask = np.stack([np.arange(longest) < len(row.inputs["input_ids"]) for row in rows])
        out = self.model.get_text_features(
            input_ids=torch.from_numpy(ids.astype(np.int64)).to(self.device),
            attention_mask=torch.from_numpy(mask.astype(np.int64)).to(self.device),
        )
        pooled = to_host(out.pooler_output)
        hidden = to_host(out.last_hidden_state) if want_tokens else None
        return [
            words(row, pooled[i], None if hidden is None else hidden[i, : len(row.inputs["input_ids"])])
            for i, row in enumerate(rows)
        ]
