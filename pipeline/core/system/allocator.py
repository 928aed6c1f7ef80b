"""Configures glibc's malloc to keep freed memory.

Images, waveforms and batches are blocks of megabytes that are allocated and freed all the time. By default glibc
returns them to the kernel, which then maps and zeroes new pages for the next block. This takes up to a tenth of the
time of decoding, and a third of the time of making raw tokens.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h."""
_TRIM_BYTES, _MMAP_BYTES = 256 << 20, 32 << 20
"""Maximum freed memory that is kept, and the largest block that is kept, which is the maximum that glibc allows."""


def keep_pages() -> None:
    """Makes this process keep up to 256 MiB of freed memory. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
