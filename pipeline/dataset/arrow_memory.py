"""Memory for the values of batches."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array in memory of Arrow's pool; its values are not set.

    The pool keeps the pages of freed batches. numpy and torch give back more than 32 MB, and the kernel then clears the
    pages of the next batch, which takes longer than to fill them. And the memory begins at a cache line, as that of
    Arrow's columns does: otherwise ``memcpy`` of rows of some kilobytes takes up to a third longer.
    """
    found: np.ndarray = np.frombuffer(pa.allocate_buffer(math.prod(shape) * dtype.itemsize), dtype)
    return found.reshape(shape)
