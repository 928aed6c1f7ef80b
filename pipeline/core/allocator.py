"""glibc's malloc, told to keep what it is given back.

Pictures, sounds and batches are megabytes that come and go. By itself glibc returns them to the kernel, and each one's
pages are then zeroed and mapped anew: up to a tenth of decoding, a third of making raw tokens.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of malloc.h."""
_TRIM_BYTES, _MMAP_BYTES = 256 << 20, 32 << 20
"""Kept at most, and the largest block that is kept at all, which is glibc's own bound."""


def keep_pages() -> None:
    """From now on this process keeps up to 256 MB that it has freed. Nothing happens without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
