"""What every encoder is: prepared rows in, token vectors and pooled vectors out.

``TransformersEncoder`` is the shared machinery: load from safetensors, group rows that may share a
batch, run micro-batches, never let a row depend on its neighbours. A member adds what its
architecture does differently: how to load, what may be batched, one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class EncoderSpec:
    """What the driver must know of an encoder before it runs; read from JSON, no weights loaded."""

    dim: int | None
    """Width of the pooled embedding; None if it has none."""
    token_dim: int | None
    """Width of the token vectors; None if it has none."""
    space: str
    """Identity of the space of the pooled embedding."""
    normalized: bool
    """True if vectors of this space are compared on the unit sphere."""
    native_dtype: str
    """dtype in which the checkpoint was saved: float32, bfloat16, float16."""
    model_type: str
    processor: str
    """Class names of the processor and its backend, for the lineage."""


@dataclass(frozen=True)
class Encoded:
    """One row of one feature, encoded. float32 arrays on the host; ``tokens`` may be float16 and are then all finite.

    ``tokens`` [N, token_dim] in grid order, N = T*H*W, without class, register, special or padding
    tokens; ``prefix_tokens`` [P, token_dim]; ``token_ids`` [N] int32; ``pooled`` [dim], not
    normalised; ``times_s`` [T] float64 presentation times, where the media has times.
    """

    pooled: np.ndarray | None = None
    tokens: np.ndarray | None = None
    prefix_tokens: np.ndarray | None = None
    token_ids: np.ndarray | None = None
    grid: tuple[int, int, int] | None = None
    times_s: np.ndarray | None = None


class Encoder(Protocol):
    """A member of the family, built as ``Class(config, checkpoint, modality, tokenizer)``.

    ``tokenizer`` is the feature's tokenizer config, for what both must agree on. Constructing only
    stores. ``spec`` works on the driver; ``setup`` loads the weights in the worker.
    """

    token_dtype: np.dtype
    """In which the caller stores tokens: float16 or float32. Those that fit float16 may be given as such."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for what cannot work: modality, tokenizer, dtype, lengths."""
        ...

    def spec(self) -> EncoderSpec: ...

    def import_code(self) -> None:
        """Imports what ``setup`` takes. Loads nothing."""
        ...

    def setup(self) -> None: ...

    def encode(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Encode rows of one feature, in the order given; a row that cannot be encoded gives a
        ``SampleError`` in its place. ``want_tokens``: False lets it skip the
        copying of token vectors to the host."""
        ...
