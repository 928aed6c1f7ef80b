"""Audio encoder: the Audio Spectrogram Transformer. Source: https://arxiv.org/abs/2104.01778"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ConfigDict

from pipeline.core.errors import SampleError
from pipeline.encoders._shared import audio
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.kaldi import frame_samples, log_mel
from pipeline.encoders._shared.sounds import SpanEncoder
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig

if TYPE_CHECKING:
    import torch

_SHIFT_S = 0.010
"""Frame shift of Kaldi's features, which the feature extractor uses without an option for it."""
_PREFIX = 2
"""The class and the distillation token."""


class AstConfig(TransformersEncoderConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ast"]
    long: Literal["truncate", "chunk"] = "truncate"
    """Sound longer than the model's input span (10.24 s). ``truncate``: only its first span is encoded, as by the
    feature extractor. ``chunk``: consecutive chunks of one span are encoded; their tokens are concatenated, and the
    pooled vector is the mean of theirs."""


class AstEncoder(SpanEncoder):
    """Tokens: spectrogram patches, grid (T, F, 1), time-major; prefix: class and distillation token.

    The extractor pads every spectrogram to the model's span, and the model attends to the padding, so the pooled
    vector depends on it, as in the reference. Time steps whose patches begin after the last frame of sound are dropped.
    """

    model_types = ("audio-spectrogram-transformer",)
    config: AstConfig
    pooled_by = "pooler"

    def check(self, where: str) -> None:
        super().check(where)
        extractor, config = audio.load_extractor(self.checkpoint), self.model_config()
        audio.check_equal(self.checkpoint, "frames", extractor.max_length, config.max_length)
        audio.check_equal(self.checkpoint, "mel bins", extractor.num_mel_bins, config.num_mel_bins)

    def width(self, config: Any) -> int:
        return int(config.hidden_size)

    def load(self) -> torch.nn.Module:
        from transformers import ASTModel

        model: torch.nn.Module = self.from_pretrained(ASTModel)
        return model

    def setup(self) -> None:
        super().setup()
        rate = self.extractor.sampling_rate
        self.shift, self.frame = frame_samples(rate)
        self.bands, self.steps = self.model.embeddings.get_shape(self.model.config)
        self.step_s = self.model.config.time_stride * _SHIFT_S

    def divide(self, samples: np.ndarray) -> list[np.ndarray]:
        if len(samples) < self.frame:
            raise SampleError("empty", f"{len(samples)} samples are shorter than one frame of {self.frame}")
        span = self.extractor.max_length * self.shift
        if self.config.long == "truncate":
            return [samples[: span + self.frame]]  # up to the last sample of the last frame
        chunks = [samples[i : i + span] for i in range(0, len(samples), span)]
        # A remainder shorter than one frame gives no frame, as at the end of a longer chunk.
        return [chunk for chunk in chunks if len(chunk) >= self.frame]

    def _features(self, sounds: Sequence[np.ndarray]) -> np.ndarray:
        """Returns what the extractor makes of each sound, [B, frames, mel bins]."""
        extractor = self.extractor
        if type(extractor).__name__ != "ASTFeatureExtractor":  # another one, which the checkpoint names
            return np.concatenate([audio.extract(extractor, sound)["input_values"] for sound in sounds])
        features = np.zeros((len(sounds), extractor.max_length, extractor.num_mel_bins), np.float32)
        for i, found in enumerate(log_mel(sounds, extractor.sampling_rate, extractor.num_mel_bins)):
            features[i, : len(found)] = found[: extractor.max_length]
        return extractor.normalize(features) if extractor.do_normalize else features

    def encode_parts(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        output = self.model(upload(self._features([part.samples for part in parts]), self.device, self.dtype))
        pooled = download(output.pooler_output)
        states = download(output.last_hidden_state) if want_tokens else None
        done = []
        for i, part in enumerate(parts):
            frames = 1 + (len(part.samples) - self.frame) // self.shift
            steps = min(self.steps, math.ceil(frames / self.model.config.time_stride))
            if states is None:
                done.append(EncodedPart(pooled[i].copy(), steps))
                continue
            grid = states[i, _PREFIX:].reshape(self.bands, self.steps, -1)  # the model's order is band by band
            tokens = np.ascontiguousarray(grid[:, :steps].swapaxes(0, 1)).reshape(steps * self.bands, -1)
            prefix = states[i, :_PREFIX].copy()
            done.append(EncodedPart(pooled[i].copy(), steps, 1.0, tokens, prefix))
        return done
