"""SigLIP and SigLIP 2: an image tower and a text tower in one space. SigLIP 2 NaFlex keeps each picture's aspect ratio.

Sources: https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np

from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.encoders._shared.device import upload
from pipeline.encoders._shared.pictures import PictureConfig, VisionOutput
from pipeline.encoders._shared.pixels import Size, grid_of
from pipeline.encoders._shared.text import check_tokenizer_files, split, tokenizer_name
from pipeline.encoders._shared.two_towers import TwoTowerEncoder
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs


class SiglipConfig(PictureConfig):
    """``checkpoint`` has model_type siglip (SigLIP, SigLIP 2 of fixed resolution) or siglip2 (NaFlex)."""

    kind: Literal["siglip"] = "siglip"


class SiglipEncoder(TwoTowerEncoder):
    """Pooled: output of the tower's pooling head. Tokens: ``last_hidden_state``, without padding patches (NaFlex)."""

    model_types = ("siglip", "siglip2")

    @property
    def is_naflex(self) -> bool:
        return self.checkpoint.model_type == "siglip2"

    def check(self, where: str) -> None:
        super().check(where)
        if not self.is_visual:
            check_tokenizer_files(self.checkpoint)  # without them, transformers creates an empty tokenizer
            self._text_tokenizer()

    def dims(self) -> tuple[int | None, int]:
        config = self.model_config()
        if not self.is_visual:
            return config.text_config.projection_size, config.text_config.hidden_size
        width = config.vision_config.hidden_size
        return (width if getattr(config.vision_config, "vision_use_head", True) else None), width

    def processor_name(self) -> str:
        return tokenizer_name(self.checkpoint)

    def picture_size(self) -> Size | None:
        return None if self.is_naflex else super().picture_size()

    def prefix_length(self) -> int:
        return 0

    def bucket(self, row: ModelInputs) -> Hashable:
        if not self.is_visual:
            return "too long" if len(row.inputs["input_ids"]) > self.text_length else "text"
        return "naflex" if self.is_naflex else super().bucket(row)

    def length(self, row: ModelInputs) -> int:
        """Patches of a NaFlex picture; 0 for other rows, which are all equally large once padded."""
        return row.inputs["pixels"].shape[-2] if self.is_naflex and self.is_visual else 0

    def setup(self) -> None:
        super().setup()
        if not self.is_visual:
            tokenizer = self._text_tokenizer()
            self.pad_id, self.pad_left = int(tokenizer.pad_token_id), tokenizer.padding_side == "left"
            self.is_masked = "attention_mask" in tokenizer.model_input_names
            self.text_length = min(tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)

    def _text_tokenizer(self) -> Any:
        """The checkpoint's tokenizer, which defines how texts are padded. The text tower attends to padding."""
        from transformers import AutoTokenizer

        try:
            with bounded_memory():
                tokenizer = AutoTokenizer.from_pretrained(
                    self.checkpoint.path, trust_remote_code=False, local_files_only=True
                )
        except Exception as error:  # each tokenizer class raises its own
            raise ConfigError(
                self.checkpoint.where,
                f"{self.checkpoint.name!r} has no tokenizer that loads ({describe(error)})",
                "save the model's own fast tokenizer into the same folder",
            ) from error
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                self.checkpoint.where, f"the tokenizer of {self.checkpoint.name!r} has no pad token", "name one in it"
            )
        return tokenizer

    def forward_images(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        if self.is_naflex:
            return self._forward_naflex(pictures, want_hidden)
        pixels = self.finish([picture["pixels"] for picture in pictures])
        out = self.model.get_image_features(pixel_values=pixels)
        grid = grid_of(pixels.shape[-2:], self.model.config.vision_config.patch_size)
        return self.vision_output(out.pooler_output, out.last_hidden_state, [grid] * len(pictures), want_hidden)

    def _forward_naflex(self, pictures: Sequence[dict[str, np.ndarray]], want_hidden: bool) -> VisionOutput:
        """Runs pictures of different shapes, as patches [n, P*P*C], padded to the longest and masked."""
        lengths = [len(picture["pixels"]) for picture in pictures]
        patches = np.zeros((len(pictures), max(lengths), pictures[0]["pixels"].shape[-1]), pictures[0]["pixels"].dtype)
        for i, picture in enumerate(pictures):
            patches[i, : lengths[i]] = picture["pixels"]
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        shapes = np.stack([picture["spatial_shape"] for picture in pictures]).astype(np.int64)
        out = self.model.get_image_features(
            pixel_values=self.processor.finish(upload(patches, self.device)).to(self.dtype),
            pixel_attention_mask=upload(mask, self.device),
            spatial_shapes=upload(shapes, self.device),
        )
        grids = [(int(height), int(width)) for height, width in shapes]
        return self.vision_output(out.pooler_output, out.last_hidden_state, grids, want_hidden)

    def forward_text(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Runs the text tower. Every text is padded to the model's full length, as in training."""
        import torch

        longest = max(len(row.inputs["input_ids"]) for row in rows)
        if longest > self.text_length:  # true for all rows of a bucket
            return [SampleError("limit", f"{longest} tokens, the model takes {self.text_length}") for _ in rows]
        ids = np.full((len(rows), self.text_length), self.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            n = len(row.inputs["input_ids"])
            span = slice(self.text_length - n, None) if self.pad_left else slice(0, n)
            ids[i, span], mask[i, span] = row.inputs["input_ids"], 1
        inputs = {"attention_mask": upload(mask, self.device)} if self.is_masked else {}
        out = self.model.get_text_features(input_ids=upload(ids, self.device), **inputs)
        hidden = out.last_hidden_state if want_tokens else None
        if hidden is not None and self.pad_left:  # move every text to the start of its row
            hidden = torch.stack([h.roll(len(row.inputs["input_ids"]), 0) for h, row in zip(hidden, rows, strict=True)])
        return list(split(rows, out.pooler_output, hidden))
