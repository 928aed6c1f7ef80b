"""Video frames turned upright."""

from __future__ import annotations

import gc
import struct
from typing import Any

import numpy as np

_MAX_UNFREED = 1 << 27


def upright(frame: Any, size: tuple[int, int] | None = None, reformatter: Any = None) -> np.ndarray:
    """[H, W, 3] uint8 of a frame, turned and mirrored as its display matrix says; scaled to ``size`` if it has another.

    ``size`` is (height, width) of the upright picture. The matrix counts in quarter turns, like every player.
    ``reformatter``: PyAV's, for all frames of a stream: each new one sets up its tables anew.
    """
    from av.video.reformatter import VideoReformatter

    a, b, c, d = _display_matrix(frame)
    swapped = _swaps(frame)
    height, width = size or (None, None)
    if swapped:
        height, width = width, height
    convert = (reformatter or VideoReformatter()).reformat
    # a thread a core is more than the conversion is worth
    pixels = np.asarray(convert(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray())
    if swapped:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    _let_go(frame)
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


_unfreed = 0
"""Bytes of frames that only the collector frees."""


def _let_go(frame: Any) -> None:
    """A frame whose side data was looked at and that data hold each other, and the collector counts objects, not bytes:
    a process would hold gigabytes of frames."""
    global _unfreed
    _unfreed += 3 * frame.width * frame.height
    if _unfreed > _MAX_UNFREED:
        gc.collect()
        _unfreed = 0


def upright_size(frame: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width of a frame of ``height`` x ``width`` once it is turned."""
    return (width, height) if _swaps(frame) else (height, width)


def _swaps(frame: Any) -> bool:
    a, b, c, d = _display_matrix(frame)
    return abs(b) + abs(c) > abs(a) + abs(d)


def mirrored(frame: Any) -> bool:
    """True if the display matrix does more than rotate."""
    a, b, c, d = _display_matrix(frame)
    return a * d - b * c < 0


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """a, b, c, d: a pixel (x, y) is shown at (a x + c y, b x + d y), in 16.16 fixed point."""
    raw = frame.side_data.get("DISPLAYMATRIX")
    if raw is None:
        return 1 << 16, 0, 0, 1 << 16
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(raw))
    return a, b, c, d
