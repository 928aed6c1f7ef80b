"""Encoder without a model: the tokens are the values of the media themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import SampleError
from pipeline.core.media import Modality
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs

_FRAME_S = 0.02


class RawConfig(BaseModel):
    """Text: token ids. Pictures: patches with values in [0, 1], row by row, channels last. Sound: frames of samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["raw"]


class RawEncoder:
    """Cuts the tokenizer's output into tokens.

    Shapes by tokenizer: ``patch`` [H*W, P*P*3]; ``frame`` [T*H*W, P*P*3], or [T, size*size*3] with ``tokens: frame``;
    ``tubelet`` [T/t * H*W, t*P*P*3]; ``audio_frame`` [N, frame], the last frame padded with zeros.
    """

    def __init__(self, config: RawConfig, checkpoint: Checkpoint | None, modality: Modality, tokenizer: Any) -> None:
        self.config, self.modality, self.tokenizer = config, modality, tokenizer
        self.token_dtype = np.dtype(np.float32)

    def check(self, where: str) -> None:
        """Checks nothing: the tokenizer checks its own fields."""

    def spec(self) -> EncoderSpec:
        return EncoderSpec(
            dim=None,
            token_dim=self._token_dim(),
            space="raw",
            normalized=False,
            native_dtype="float32",
            model_type="raw",
            processor=f"{self.tokenizer.kind} (no model)",
        )

    def import_code(self) -> None:
        """Imports nothing: only numpy is needed."""

    def setup(self) -> None:
        """Loads nothing."""

    def encode(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        encode = {"text": self._encode_text, "audio": self._encode_sound}.get(self.modality, self._encode_pixels)
        return [encode(row) for row in rows]

    def _token_dim(self) -> int | None:
        if self.modality == "text":
            return None
        if self.modality == "audio":
            return self._frame
        return 3 * self._patch**2 * self._tubelet

    @property
    def _frame(self) -> int:
        """Samples per frame."""
        frame_s: float = self.tokenizer.frame_s or _FRAME_S
        return max(1, round(frame_s * (self.tokenizer.sample_rate or 0)))

    @property
    def _patch(self) -> int:
        """Pixels on the edge of a token's block."""
        is_whole_frame = getattr(self.tokenizer, "tokens", None) == "frame"
        return int(self.tokenizer.size if is_whole_frame else self.tokenizer.patch_size)

    @property
    def _tubelet(self) -> int:
        """Frames per token."""
        return int(getattr(self.tokenizer, "tubelet_size", None) or 1)

    def _encode_text(self, row: ModelInputs) -> Encoded:
        ids = row.inputs["input_ids"][row.inputs["special_mask"] == 0]
        return Encoded(token_ids=ids.astype(np.int32), grid=(len(ids), 1, 1))

    def _encode_sound(self, row: ModelInputs) -> Encoded:
        samples, width = row.inputs["waveform"], self._frame
        count = -(-len(samples) // width)
        tokens = np.zeros((count, width), np.float32)
        tokens.reshape(-1)[: len(samples)] = samples
        assert row.times_s is not None
        times = row.times_s[0] + np.arange(count) * (width / self.tokenizer.sample_rate)
        return Encoded(tokens=tokens, prefix_tokens=tokens[:0], grid=(count, 1, 1), times_s=times)

    def _encode_pixels(self, row: ModelInputs) -> Encoded:
        pixels = row.inputs["pixels"]
        frames = pixels[None] if pixels.ndim == 3 else pixels  # [T, 3, size, size]
        p, t = self._patch, self._tubelet
        steps, side = len(frames) // t, frames.shape[-1] // p
        blocks = frames.reshape(steps, t, 3, side, p, side, p).transpose(0, 3, 5, 1, 4, 6, 2)  # T H W | t p p 3
        tokens = blocks.reshape(steps * side * side, t * p * p * 3).astype(np.float32) / np.float32(255)
        times = None if row.times_s is None else row.times_s[::t]
        return Encoded(tokens=tokens, prefix_tokens=tokens[:0], grid=(steps, side, side), times_s=times)
