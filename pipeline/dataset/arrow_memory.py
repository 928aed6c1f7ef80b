"""Memory for the values of batches."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an uninitialized array, in memory of Arrow's pool if that is mimalloc, as by default.

    mimalloc keeps the pages of freed batches. numpy and torch give back more than 32 MB, and the kernel then clears the
    pages of the next batch, which takes longer than to fill them. Arrow's other pools are slower than numpy. The memory
    begins at a cache line, as that of Arrow's columns does: otherwise ``memcpy`` of rows of some kilobytes takes up to
    a third longer.

    Raises ``MemoryError``, not Arrow's, which is also an ``ArrowException``: no data is damaged.
    """
    if pa.default_memory_pool().backend_name != "mimalloc":
        return np.empty(shape, dtype)
    try:
        memory = pa.allocate_buffer(math.prod(shape) * dtype.itemsize)
    except pa.ArrowMemoryError as error:
        raise MemoryError(str(error)) from error
    found: np.ndarray = np.frombuffer(memory, dtype)
    return found.reshape(shape)
