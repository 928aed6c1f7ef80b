"""Head that returns the encoder's pooled vector, in the encoder's space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.heads.base import unit


class NativeConfig(BaseModel):
    """Config of the head that returns the pooled vector unchanged, or L2-normalised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["native"] = "native"
    normalize: bool | None = None
    """True: L2-normalise; null: if the encoder's space is normalised."""


class NativeHead:
    """Stacks the pooled vectors."""

    def __init__(self, config: NativeConfig, spec: EncoderSpec) -> None:
        self.dim = spec.dim or 0
        self.space = spec.space
        self.normalized = spec.normalized if config.normalize is None else config.normalize

    def check(self, where: str) -> None:
        """Checks nothing."""

    def setup(self) -> None:
        """Loads nothing."""

    def project(self, rows: Sequence[Encoded]) -> np.ndarray:
        pooled = [row.pooled for row in rows if row.pooled is not None]
        vectors = np.stack(pooled).astype(np.float32, copy=False)
        return unit(vectors) if self.normalized else vectors
