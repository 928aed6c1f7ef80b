"""Audio encoder of Whisper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ConfigDict

from pipeline.encoders._shared import audio
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.sounds import SpanEncoder
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig

if TYPE_CHECKING:
    import torch

_STRIDE = 2
"""Spectrogram frames per token: the stride of the encoder's second convolution, a constant in the model class."""


class WhisperConfig(TransformersEncoderConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["whisper"]
    long: Literal["chunk", "truncate"] = "chunk"
    """Sound longer than the model's input span (30 s). ``chunk``: consecutive chunks of one span are encoded.
    ``truncate``: only its first span."""


class WhisperEncoder(SpanEncoder):
    """Tokens: the encoder's hidden states, one per 20 ms. Pooled: their mean.

    The input is always padded with silence to the model's span. Only the states that cover sound are kept:
    ``ceil(samples / samples per token)``.
    """

    model_types = ("whisper",)
    config: WhisperConfig

    def check(self, where: str) -> None:
        super().check(where)
        extractor, config = audio.load_extractor(self.checkpoint), self.model_config()
        audio.check_equal(self.checkpoint, "frames", extractor.nb_max_frames, config.max_source_positions * _STRIDE)
        audio.check_equal(self.checkpoint, "mel bins", extractor.feature_size, config.num_mel_bins)

    def width(self, config: Any) -> int:
        return int(config.d_model)

    def load(self) -> torch.nn.Module:
        from transformers import WhisperModel

        model = self.from_pretrained(WhisperModel)
        encoder: torch.nn.Module = model.get_encoder()
        return encoder

    def setup(self) -> None:
        super().setup()
        self.samples_per_token = self.extractor.hop_length * _STRIDE
        self.step_s = self.samples_per_token / self.extractor.sampling_rate

    def divide(self, samples: np.ndarray) -> list[np.ndarray]:
        span = self.extractor.n_samples
        chunks = [samples[i : i + span] for i in range(0, len(samples), span)]
        return chunks[:1] if self.config.long == "truncate" else chunks

    def encode_parts(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        import torch

        mel = np.concatenate([audio.extract(self.extractor, part.samples)["input_features"] for part in parts])
        hidden = self.model(upload(mel, self.device, self.dtype)).last_hidden_state.float()
        longest = hidden.shape[1]
        counts = [min(longest, math.ceil(len(part.samples) / self.samples_per_token)) for part in parts]
        pooled = download(torch.stack([one[:n].mean(0) for one, n in zip(hidden, counts, strict=True)]))
        states = download(hidden) if want_tokens else None
        done = []
        for i, n in enumerate(counts):
            tokens = None if states is None else states[i, :n].copy()
            done.append(EncodedPart(pooled[i].copy(), n, float(n), tokens))
        return done
