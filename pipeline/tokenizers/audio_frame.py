"""Turns sound into one waveform at the encoder's sample rate. The encoder divides it into frames."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.checkpoint.files import bounded_memory
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.media import Media, Modality, Waveform, WaveformRequest
from pipeline.tokenizers.base import ModelInputs, missing

_MAX_RATE = 10_000_000
"""Maximum sample rate of an extractor, Hz; ultrasound sensors have lower ones."""


class AudioFrameConfig(BaseModel):
    """Config of the tokenizer that turns sound into mono samples at one rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["audio_frame"]
    frame_s: float | None = Field(default=None, gt=0, le=3600)
    """Seconds per frame, only for an encoder without a checkpoint (``raw``); null: 0.02. A model defines its own."""
    sample_rate: int | None = Field(default=None, ge=1, le=768_000)
    """Hz. null: the rate of the checkpoint's feature extractor, which takes no other."""


class AudioFrameTokenizer:
    """Sound window -> waveform.

    ``inputs``: ``waveform`` float32 [samples]. ``times_s`` [1]: the time of the first sample.
    """

    modality: Modality = "audio"

    def __init__(self, config: AudioFrameConfig, checkpoint: Checkpoint | None) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self._rate = config.sample_rate

    def check(self, where: str) -> None:
        check_rate(self.config, self.checkpoint, where)
        if self.checkpoint is not None and self.config.frame_s is not None:
            allowed = "only with encoder 'raw': a model's frames are its own, leave it out"
            raise ConfigError(f"{where}.frame_s", f"{self.config.frame_s:g}", allowed)

    def request(self) -> WaveformRequest:
        if self._rate is None:  # called for each row, so the rate is read once
            assert self.checkpoint is not None
            self._rate = extractor_rate(self.checkpoint)
        return WaveformRequest(self._rate)

    def setup(self) -> None:
        """Loads nothing: the encoder extracts features."""

    def tokenize(self, media: Media) -> ModelInputs:
        assert isinstance(media, Waveform)
        if not len(media.samples):
            raise SampleError("empty", "the waveform has no samples")
        return ModelInputs({"waveform": np.asarray(media.samples, np.float32)}, np.array([media.start_s], np.float64))


def check_rate(config: AudioFrameConfig, checkpoint: Checkpoint | None, where: str) -> None:
    """Raises ``ConfigError`` if the configured rate is not the checkpoint's. ``where``: the tokenizer's path."""
    if checkpoint is None:
        if config.sample_rate is None:
            raise ConfigError(f"{where}.sample_rate", "not given", missing("a sample_rate"))
        return
    rate = extractor_rate(checkpoint)
    if config.sample_rate not in (None, rate):
        raise ConfigError(f"{where}.sample_rate", f"{config.sample_rate}", f"the model takes {rate}: leave it out")


def extractor_rate(checkpoint: Checkpoint) -> int:
    """Sample rate of the checkpoint's feature extractor, Hz.

    Raises:
        ConfigError: there is no feature extractor, or its rate is not a number in range.
    """
    own = checkpoint.json("preprocessor_config.json")
    extractor = own or checkpoint.json("processor_config.json").get("feature_extractor", {})
    rate = (extractor.get("sampling_rate") if isinstance(extractor, dict) else None) or _default_rate(checkpoint)
    if not isinstance(rate, int | float) or not 1 <= rate <= _MAX_RATE:
        raise ConfigError(
            checkpoint.where, f"{checkpoint.name!r} has a sampling rate of {rate!r}", f"a number up to {_MAX_RATE}"
        )
    return int(rate)


def _default_rate(checkpoint: Checkpoint) -> int:
    """Rate of an extractor whose file does not contain it: the default of its class."""
    from transformers import AutoFeatureExtractor

    try:
        with bounded_memory():
            extractor = AutoFeatureExtractor.from_pretrained(
                checkpoint.path, trust_remote_code=False, local_files_only=True
            )
        return int(extractor.sampling_rate)
    except Exception as error:  # each extractor class raises its own
        raise ConfigError(
            checkpoint.where,
            f"{checkpoint.name!r} has no feature extractor for sound ({describe(error)})",
            "save the model's own preprocessor_config.json into the same folder",
        ) from error
