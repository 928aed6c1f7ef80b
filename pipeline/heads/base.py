"""The interface of every head: an encoder's output in, one vector of a named space out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.encoders.base import Encoded


class Head(Protocol):
    """A head, constructed as ``Class(config, spec)`` with the encoder's ``EncoderSpec``.

    The attributes are valid after ``check``, on the driver and in workers.
    """

    dim: int
    """Width of the vectors."""
    space: str
    """Identity of their space."""
    normalized: bool
    """True if the vectors are L2-normalised."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for missing weights, or dimensions that do not match.

        Args:
            where: the head's path in the config.
        """
        ...

    def setup(self) -> None:
        """Loads the weights, in the worker."""
        ...

    def project(self, rows: Sequence[Encoded]) -> np.ndarray:
        """Vectors [B, dim] float32, L2-normalised if ``normalized``."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales rows [B, dim] to length 1. A zero vector stays zero, as in ``torch.nn.functional.normalize``."""
    length = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
    scaled: np.ndarray = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled
