"""Converts Pillow pictures of any mode to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.core.errors import SampleError

if TYPE_CHECKING:
    import PIL.Image

    from pipeline.decoders.image import ImageConfig


_STRIP_ROWS = 64


def to_rgb(picture: PIL.Image.Image, config: ImageConfig) -> np.ndarray:
    """Pixels [H, W, 3] uint8 of a picture of any mode. 16-bit and float greys are scaled to 8 bits."""
    import PIL.Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        grey = to_grey8(np.asarray(picture), picture.mode, config.floats)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
        assert converted is not None, "it is None only if it works in place"
        picture = converted
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        layer = picture.convert("RGBA") if picture.mode != "RGBA" else picture
        if layer.getchannel("A").getextrema() != (255, 255):
            ground = PIL.Image.new("RGBA", layer.size, (*config.background, 255))
            ground.alpha_composite(layer)
            layer = ground
        picture = layer
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def to_grey8(values: np.ndarray, mode: str, floats: Literal["refuse", "clip", "scale"] = "refuse") -> np.ndarray:
    """Scales grey values to 8 bits: integers by their full range, floats as ``ImageConfig.floats`` says.

    It converts strips of rows, because a float64 copy of the whole picture would take eight times the memory.
    """
    if mode == "F":
        zero, scale = _range_of_floats(values, floats)
    else:
        zero, scale = (
            0.0,
            256 / 2**31 if values.max(initial=0) > 65535 else 1 / 257,
        )  # Pillow may store 16-bit greys in 32 bits
    done = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _STRIP_ROWS):
        wide = values[start : start + _STRIP_ROWS].astype(np.float64)
        strip = np.nan_to_num((wide - zero) * scale, nan=0.0, posinf=255.0, neginf=0.0)
        done[start : start + _STRIP_ROWS] = np.clip(np.round(strip), 0, 255)
    return done


def _range_of_floats(values: np.ndarray, floats: Literal["refuse", "clip", "scale"]) -> tuple[float, float]:
    """``(value of black, factor to 8 bits)``. Raises ``SampleError`` (``unsupported``) if the range is unclear."""
    finite = np.isfinite(values)
    low = float(np.min(values, initial=np.inf, where=finite))
    top = float(np.max(values, initial=-np.inf, where=finite))
    if low > top:
        return 0.0, 1.0  # no finite value
    white = 1.0 if top < 2 else 255.0
    level = white / 255
    if -level / 2 <= low and top <= white + level / 2:
        return 0.0, 1 / level
    if floats == "scale":
        return low, 255 / (top - low) if top > low else 0.0
    if floats == "clip":
        return 0.0, 1 / level
    raise SampleError(
        "unsupported",
        f"float values from {low:.6g} to {top:.6g}, neither [0, 1] nor [0, 255]: decoders.image.floats says clip or "
        "scale",
    )
