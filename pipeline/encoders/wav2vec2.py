"""Audio encoders Wav2Vec2, HuBERT and WavLM."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from pipeline.core.errors import SampleError
from pipeline.encoders._shared import audio
from pipeline.encoders._shared.device import download, upload
from pipeline.encoders._shared.sounds import SoundEncoder
from pipeline.encoders._shared.transformers_encoder import TransformersEncoderConfig
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch


_MAX_S = {"wavlm": 100.0}
"""Defaults of ``max_s`` by model type, seconds. The memory of WavLM's attention grows with the square of the length."""
_DEFAULT_MAX_S = 300.0


class Wav2Vec2Config(TransformersEncoderConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wav2vec2"]
    batch_s: float = Field(default=160.0, gt=0)
    """Seconds of sound, padding included, in one forward pass; a longer row gets a pass by itself."""
    max_s: float | None = Field(default=None, gt=0)
    """Maximum seconds of sound in a row; a longer one fails (``limit``). The model processes a row in one pass, whose
    memory grows with its length. null: 300 s; for WavLM 100 s. Both take about 5 GB with a base model."""


class Wav2Vec2Encoder(SoundEncoder):
    """Tokens: the last hidden states, one per frame of the model's convolutions (49 for 1 s). Pooled: their mean.

    The checkpoint's feature extractor normalises the waveform. In models with group norm, the result depends on the
    padded length even with a mask, so a batch has only rows of equal length. In models with layer norm, rows are padded
    and masked.
    """

    model_types = ("wav2vec2", "hubert", "wavlm")
    config: Wav2Vec2Config

    def width(self, config: Any) -> int:
        return int(config.output_hidden_size if getattr(config, "add_adapter", False) else config.hidden_size)

    def load(self) -> torch.nn.Module:
        from transformers import AutoModel

        model: torch.nn.Module = self.from_pretrained(AutoModel, unused=("masked_spec_embed",))
        return model

    def setup(self) -> None:
        super().setup()
        # WavLM passes torch a mask of another dtype than its position bias, of which torch warns once per process.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        config = self.model.config
        self.max_s = self.config.max_s or _MAX_S.get(self.checkpoint.model_type, _DEFAULT_MAX_S)
        adapted = getattr(config, "add_adapter", False)
        self.samples_per_token = math.prod(config.conv_stride)
        if adapted:
            self.samples_per_token *= config.adapter_stride**config.num_adapter_layers
        # An adapter's convolutions, and a batch norm before the positional convolution, read the padding.
        self.can_pad = (
            config.feat_extract_norm == "layer" and not adapted and not getattr(config, "conv_pos_batch_norm", False)
        )

    def bucket(self, row: ModelInputs) -> Hashable:
        return () if self.can_pad else super().bucket(row)

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["waveform"])

    def max_units(self) -> float:
        return self.config.batch_s * float(self.extractor.sampling_rate)

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        lengths = [self.length(row) for row in rows]
        counts = self._token_counts(lengths)
        errors = [self._length_error(length, count) for length, count in zip(lengths, counts, strict=True)]
        valid = [i for i, error in enumerate(errors) if error is None]
        encoded = iter(self._encode([rows[i] for i in valid], [counts[i] for i in valid], want_tokens) if valid else ())
        return [next(encoded) if error is None else error for error in errors]

    def _length_error(self, samples: int, tokens: int) -> SampleError | None:
        seconds = samples / self.extractor.sampling_rate
        if seconds > self.max_s:
            hint = "cut shorter windows, or give a larger max_s"
            return SampleError("limit", f"{seconds:.8g} s of sound, over max_s {self.max_s:g}: {hint}")
        return None if tokens > 0 else self._too_short(samples)

    def _token_counts(self, lengths: list[int]) -> list[int]:
        import torch

        counts: list[int] = self.model._get_feat_extract_output_lengths(torch.tensor(lengths)).tolist()
        return counts

    def _too_short(self, samples: int) -> SampleError:
        config, needed = self.model.config, 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            needed = (needed - 1) * stride + kernel
        return SampleError("empty", f"{samples} samples are too short: the model's first frame takes {needed}")

    def _encode(self, rows: Sequence[ModelInputs], counts: list[int], want_tokens: bool) -> list[Encoded]:
        import torch

        values = [audio.extract(self.extractor, audio.waveform(row))["input_values"][0] for row in rows]
        batch = np.zeros((len(rows), max(len(one) for one in values)), np.float32)
        mask = np.zeros(batch.shape, np.int64)
        for i, one in enumerate(values):
            batch[i, : len(one)] = one
            mask[i, : len(one)] = 1
        padded = not mask.all()
        hidden = self.model(
            upload(batch, self.device, self.dtype),
            attention_mask=upload(mask, self.device) if padded else None,
        ).last_hidden_state.float()
        kept = [hidden[i, : counts[i]] if padded else hidden[i] for i in range(len(rows))]
        pooled = download(torch.stack([one.mean(0) for one in kept]))
        if not want_tokens:
            return [Encoded(pooled=one.copy()) for one in pooled]
        step_s = self.samples_per_token / self.extractor.sampling_rate
        states = download(hidden)
        done = []
        for i, row in enumerate(rows):
            n = len(kept[i])
            done.append(
                Encoded(
                    pooled=pooled[i].copy(),
                    tokens=states[i, :n].copy(),
                    prefix_tokens=np.zeros((0, states.shape[2]), np.float32),
                    grid=(n, 1, 1),
                    times_s=audio.start_s(row) + step_s * np.arange(n),
                )
            )
        return done
