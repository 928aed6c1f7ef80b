"""JPEG to RGB by simplejpeg, where it gives what Pillow gives."""

from __future__ import annotations

import numpy as np

_JPEG = b"\xff\xd8\xff"
_MAY_TURN = (b"Exif\0", b"tiff:Orientation")
"""Where the metadata may say that a picture lies on its side."""
_SUBSAMPLINGS = ("444", "422", "420")


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of 8-bit grey or YCbCr that no metadata turns; None for all else.

    Its pixels are those that Pillow gives: both are libjpeg-turbo with its exact transform and upsampling.
    """
    if not data.startswith(_JPEG) or any(words in data for words in _MAY_TURN):
        return None
    import simplejpeg

    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        return None
    known = (colours == "YCbCr" and subsampling in _SUBSAMPLINGS) or colours == "Gray"
    return (width, height) if known else None


def jpeg_pixels(data: bytes, shorter_edge: int | None = None) -> np.ndarray | None:
    """[H, W, 3] uint8 of a plain JPEG; None for one of which libjpeg so much as warns.

    ``shorter_edge``: at the smallest of 1, 1/2, 1/4 and 1/8 that leaves both edges at least so long.
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
    """Options of simplejpeg that ask for a half, a quarter or an eighth: what lies between is slower than the whole."""
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    for factor in (8, 4, 2):
        small = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
        if min(small.values()) >= shorter_edge:
            return small
    return {}
