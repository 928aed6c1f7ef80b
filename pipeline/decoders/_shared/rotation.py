"""Turns video frames upright."""

from __future__ import annotations

import gc
import struct
from typing import Any

import numpy as np

_MAX_UNCOLLECTED_BYTES = 1 << 27


def upright(frame: Any, size: tuple[int, int] | None = None, reformatter: Any = None) -> np.ndarray:
    """Pixels [H, W, 3] uint8 of a frame, rotated and mirrored by its display matrix and scaled to ``size``.

    The matrix is rounded to quarter turns, as in video players.

    Args:
        size: (height, width) of the upright picture; None: its own size.
        reformatter: PyAV's reformatter, one for all frames of a stream, because each new one computes its tables again.
    """
    from av.video.reformatter import VideoReformatter

    a, b, c, d = _display_matrix(frame)
    swapped = _swaps_axes(frame)
    height, width = size or (None, None)
    if swapped:
        height, width = width, height
    convert = (reformatter or VideoReformatter()).reformat
    # more threads cost more than they save
    pixels = np.asarray(convert(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray())
    if swapped:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    _collect_garbage(frame)
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


_uncollected_bytes = 0
"""Bytes of frames that only the garbage collector frees."""


def _collect_garbage(frame: Any) -> None:
    """Runs the garbage collector after a number of bytes of frames.

    A frame and its side data reference each other once the side data is read. The collector counts objects, not bytes,
    so without this a process would keep gigabytes of frames.
    """
    global _uncollected_bytes
    _uncollected_bytes += 3 * frame.width * frame.height
    if _uncollected_bytes > _MAX_UNCOLLECTED_BYTES:
        gc.collect()
        _uncollected_bytes = 0


def upright_size(frame: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width of a frame of ``height`` x ``width`` after it is turned upright."""
    return (width, height) if _swaps_axes(frame) else (height, width)


def _swaps_axes(frame: Any) -> bool:
    """True if the display matrix is a quarter turn."""
    a, b, c, d = _display_matrix(frame)
    return abs(b) + abs(c) > abs(a) + abs(d)


def mirrored(frame: Any) -> bool:
    """True if the display matrix mirrors the picture."""
    a, b, c, d = _display_matrix(frame)
    return a * d - b * c < 0


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """``(a, b, c, d)`` in 16.16 fixed point: a pixel (x, y) is shown at (a x + c y, b x + d y)."""
    raw = frame.side_data.get("DISPLAYMATRIX")
    if raw is None:
        return 1 << 16, 0, 0, 1 << 16
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(raw))
    return a, b, c, d
