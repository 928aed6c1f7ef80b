"""What every head is: an encoder's output in, one vector of a named space out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.encoders.base import Encoded


class Head(Protocol):
    """A member of the family, built as ``Class(config, spec)`` from the encoder's ``EncoderSpec``.

    ``dim``, ``space`` and ``normalized`` are known after ``check``, on the driver and in workers.
    """

    dim: int
    space: str
    normalized: bool

    def check(self, where: str) -> None:
        """Raises ``ConfigError``: weights missing, dimensions that do not fit."""
        ...

    def setup(self) -> None: ...

    def project(self, rows: Sequence[Encoded]) -> np.ndarray:
        """[B, dim] float32, L2-normalised if the space says so."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [B, dim] scaled to length 1; a zero vector stays zero, as in ``torch.nn.functional.normalize``."""
    length = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
    scaled: np.ndarray = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled
