"""The encoder's own space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.heads.base import unit


class NativeConfig(BaseModel):
    """The pooled vector as the encoder gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["native"] = "native"
    normalize: bool | None = None
    """L2-normalise; null: as the space says."""


class NativeHead:
    """Stacks the pooled vectors."""

    def __init__(self, config: NativeConfig, spec: EncoderSpec) -> None:
        self.dim = spec.dim or 0
        self.space = spec.space
        self.normalized = spec.normalized if config.normalize is None else config.normalize

    def check(self, where: str) -> None:
        """Nothing can be wrong."""

    def setup(self) -> None:
        """Nothing to load."""

    def project(self, rows: Sequence[Encoded]) -> np.ndarray:
        pooled = [row.pooled for row in rows if row.pooled is not None]
        vectors = np.stack(pooled).astype(np.float32, copy=False)
        return unit(vectors) if self.normalized else vectors
