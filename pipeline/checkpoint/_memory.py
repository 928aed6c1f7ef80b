"""Bounds the memory of this process while a model is built from a checkpoint."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_BUILD_BYTES = 8 << 30
_MAX_COPIES = 8
"""Memory that building a model may take: `_MAX_BUILD_BYTES`, and this many times the weights."""
_lock = threading.RLock()
_nesting = 0
"""Number of `bounded_memory` blocks that are active in this process."""


@contextmanager
def bounded_memory(weights_bytes: int = 0) -> Iterator[None]:
    """Context manager in which allocations fail that exceed by far what a model of these weights needs.

    The numbers in a checkpoint's config must not take all memory of the machine. Does nothing inside another
    `bounded_memory`, or if the process has a limit already.

    Args:
        weights_bytes: size of the weight files.
    """
    global _nesting
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with _lock:
        _nesting += 1
        is_outermost = _nesting == 1 and soft == hard
        if is_outermost:
            with open("/proc/self/statm", encoding="ascii") as file:
                data = int(file.read().split()[5]) * resource.getpagesize()
            most = data + _MAX_BUILD_BYTES + _MAX_COPIES * weights_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
    try:
        yield
    finally:
        with _lock:
            _nesting -= 1
            if is_outermost:
                resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
