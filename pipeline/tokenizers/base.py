"""The interface of every tokenizer: decoded media in, an encoder's input arrays out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Media, Modality, Request


@dataclass(frozen=True)
class ModelInputs:
    """One row of one feature, ready to be encoded."""

    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    """Named arrays without a batch axis, in the smallest exact dtype: uint8 pixels, float32 waveforms, int32 ids."""
    times_s: np.ndarray | None = None
    """float64 [T], presentation time of each frame; or [1], time of a waveform's first sample; None without times."""


class Tokenizer(Protocol):
    """A tokenizer, constructed as ``Class(config, checkpoint)``.

    ``checkpoint`` is the encoder's, whose processor gives the defaults; None for ``encoder: {kind: raw}``. The
    constructor only stores its arguments; ``setup`` loads files in the worker.
    """

    modality: Modality
    """Modality of its input: video for a `frame` tokenizer."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for a config that cannot work with the checkpoint. Runs on the driver.

        Args:
            where: the tokenizer's path in the config.
        """
        ...

    def request(self) -> Request:
        """The request to the decoder, such as a sampling of frames or a sample rate. Does not need ``setup``."""
        ...

    def setup(self) -> None:
        """Loads the processor. Called once in a worker before ``tokenize``."""
        ...

    def tokenize(self, media: Media) -> ModelInputs:
        """Raises ``SampleError`` for media that cannot be tokenized. Thread-safe after ``setup``."""
        ...


def missing(what: str) -> str:
    """The advice of a ``ConfigError`` for a field that neither the config nor a checkpoint defines."""
    return f"set {what}, or give the encoder a checkpoint whose processor says it"


__all__ = ["Checkpoint", "ModelInputs", "Tokenizer", "missing"]
