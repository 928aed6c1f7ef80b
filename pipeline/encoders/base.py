"""The interface of every encoder: tokenized rows in, token vectors and pooled vectors out.

Most encoders derive from ``_shared.transformers_encoder.TransformersEncoder``, which loads a model and runs rows in
micro-batches. A row's result does not depend on the rows that it is batched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.tokenizers.base import ModelInputs


@dataclass(frozen=True)
class EncoderSpec:
    """Properties of an encoder that the driver needs before a run. Read from JSON; no weights are loaded."""

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
    """Class names of the processor and its backend, as recorded in the lineage."""


@dataclass(frozen=True)
class Encoded:
    """The output of an encoder for one row of one feature. Arrays are float32 on the host unless noted."""

    pooled: np.ndarray | None = None
    """[dim], not normalised."""
    tokens: np.ndarray | None = None
    """[N, token_dim] in grid order, N = T*H*W, without class, register, special or padding tokens. May be float16; all
    values are then finite."""
    prefix_tokens: np.ndarray | None = None
    """[P, token_dim], class, register and leading special tokens."""
    token_ids: np.ndarray | None = None
    """int32 [N]."""
    grid: tuple[int, int, int] | None = None
    """(T, H, W)."""
    times_s: np.ndarray | None = None
    """float64 [T], presentation times in seconds; None for media without times."""


class Encoder(Protocol):
    """An encoder, constructed as ``Class(config, checkpoint, modality, tokenizer)``.

    ``tokenizer`` is the config of the feature's tokenizer, which must match the encoder. The constructor only stores
    its arguments. ``check`` and ``spec`` run on the driver; ``setup`` loads the weights in the worker.
    """

    token_dtype: np.dtype
    """dtype in which the caller stores tokens. With float16, ``encode`` may return float16 tokens."""

    def check(self, where: str) -> None:
        """Raises ``ConfigError`` for a modality, tokenizer, dtype or length that cannot work.

        Args:
            where: the feature's path in the config.
        """
        ...

    def spec(self) -> EncoderSpec: ...

    def import_code(self) -> None:
        """Imports the modules that ``setup`` needs. Loads nothing."""
        ...

    def setup(self) -> None: ...

    def encode(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        """Encodes rows of one feature.

        Args:
            want_tokens: False: token vectors need not be copied to the host.

        Returns:
            One result per row, in order; a ``SampleError`` for a row that cannot be encoded.
        """
        ...
