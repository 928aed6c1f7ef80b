"""What every tokenizer is: decoded media in, the arrays that an encoder reads out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Media, Modality, Request


@dataclass(frozen=True)
class ModelInputs:
    """One row of one feature, ready to be encoded.

    ``inputs`` holds named numpy arrays of one row (no batch axis) in the smallest exact dtype: uint8
    pixels, float32 waveforms, int32 token ids. ``times_s`` [T] float64: the presentation time of
    every frame, or [1]: the time of a waveform's first sample; None for untimed media.
    """

    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    times_s: np.ndarray | None = None


class Tokenizer(Protocol):
    """A member of the family. Constructing only stores; ``setup`` loads, in the worker.

    A tokenizer is built as ``Class(config, checkpoint)``. ``checkpoint`` is the encoder's, whose own
    processor gives the defaults; None for ``encoder: {kind: raw}``.
    """

    modality: Modality
    """What it consumes; a `frame` tokenizer consumes video."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for what cannot work with the checkpoint. Runs on the driver."""
        ...

    def request(self) -> Request:
        """What to ask the decoder for. Usable before ``setup``."""
        ...

    def setup(self) -> None:
        """Load the processor. Called once in a worker before ``tokenize``."""
        ...

    def tokenize(self, media: Media) -> ModelInputs:
        """Raises ``SampleError`` for media that cannot be tokenized. Re-entrant after ``setup``."""
        ...


def missing(what: str) -> str:
    return f"set {what}, or give the encoder a checkpoint whose processor says it"


__all__ = ["Checkpoint", "ModelInputs", "Tokenizer", "missing"]
