"""Decodes JPEG to RGB with simplejpeg, which is faster than Pillow, if the pixels are equal to Pillow's."""

from __future__ import annotations

import numpy as np

_JPEG = b"\xff\xd8\xff"
_ORIENTATION_MARKS = (b"Exif\0", b"tiff:Orientation")
"""Bytes of metadata that may contain an orientation."""
_SUBSAMPLINGS = ("444", "422", "420")


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of 8-bit grey or YCbCr without an orientation; None for any other file.

    Its pixels are equal to Pillow's: both use libjpeg-turbo with its exact transform and upsampling.
    """
    if not data.startswith(_JPEG) or any(mark in data for mark in _ORIENTATION_MARKS):
        return None
    import simplejpeg

    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        return None
    is_plain = (colours == "YCbCr" and subsampling in _SUBSAMPLINGS) or colours == "Gray"
    return (width, height) if is_plain else None


def jpeg_pixels(data: bytes, shorter_edge: int | None = None) -> np.ndarray | None:
    """Pixels [H, W, 3] uint8 of a plain JPEG; None if libjpeg raises an error or a warning.

    Args:
        shorter_edge: the JPEG is scaled by the smallest of 1, 1/2, 1/4 and 1/8 at which both edges have at least this
            many pixels.
    """
    import simplejpeg

    try:
        scale = {} if shorter_edge is None else _scale(data, shorter_edge)
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, strict=True, **scale
        )
        return pixels
    except ValueError:
        return None


def _scale(data: bytes, shorter_edge: int) -> dict[str, int]:
    """Options of simplejpeg for a half, a quarter or an eighth. Other scales are slower than full size."""
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    for factor in (8, 4, 2):
        small = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        if min(small.values()) >= shorter_edge:
            return small
    return {}
