"""Base classes of encoders of sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.encoders._shared import audio
from pipeline.encoders._shared.audio import EncodedPart, Part
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs


class SoundEncoder(TransformersEncoder):
    """An encoder of waveforms, with the checkpoint's own feature extractor in ``self.extractor``."""

    modalities = ("audio",)
    tokenizer_kinds = ("audio_frame",)
    pooled_by = "mean"
    """How the pooled vector is made. Part of the name of its space."""

    def check(self, where: str) -> None:
        super().check(where)
        audio.check_sound(self.checkpoint, self.tokenizer, where)

    @abstractmethod
    def width(self, config: Any) -> int:
        """Returns the width of the vectors, from the model's config."""

    def spec(self) -> EncoderSpec:
        width = self.width(self.model_config())
        return EncoderSpec(
            dim=width,
            token_dim=width,
            space=space_id(self.checkpoint, self.pooled_by),
            normalized=False,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=type(audio.load_extractor(self.checkpoint)).__name__,
        )

    def setup(self) -> None:
        super().setup()
        self.extractor = audio.load_extractor(self.checkpoint)


class SpanEncoder(SoundEncoder):
    """An encoder whose input always has the same span. Longer sound is divided, and its parts are encoded.

    A family sets ``step_s``, the seconds of a time step, and ``bands``, the tokens of a time step, in ``setup``.
    """

    step_s: float
    bands = 1

    def bucket(self, row: ModelInputs) -> tuple[()]:
        return ()

    @property
    def splits_rows(self) -> bool:
        return True

    @abstractmethod
    def divide(self, samples: np.ndarray) -> list[np.ndarray]:
        """Divides a waveform into parts of at most one span. Raises ``SampleError`` if it cannot be encoded."""

    @abstractmethod
    def encode_parts(self, parts: Sequence[Part], want_tokens: bool) -> list[EncodedPart]:
        """Encodes parts in one forward pass."""

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        parts, errors = audio.split_rows(rows, self.extractor.sampling_rate, self.divide)
        encoded = audio.encode_in_batches(parts, self.batch_size, lambda batch: self.encode_parts(batch, want_tokens))
        return audio.join_parts(len(rows), parts, encoded, errors, self.step_s, self.bands)
