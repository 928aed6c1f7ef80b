"""Still images: every mode that Pillow itself reads, upright, as 8-bit RGB; the first frame of an animation."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.errors import SampleError, describe
from pipeline.core.media import Image, MediaInfo
from pipeline.decoders import camera_raw
from pipeline.decoders.container import upright
from pipeline.decoders.demuxer import open_av
from pipeline.decoders.sniff import HEAD_BYTES, is_heif, sniff
from pipeline.storage.blob import Blob

if TYPE_CHECKING:
    import PIL.Image

_FORMATS = (
    "AVIF BLP BMP DIB CUR PCX DCX DDS FITS FLI FTEX GBR GIF PNG JPEG2000 ICNS ICO IM IMT JPEG MCIDAS TIFF MSP PCD "
    "PIXAR PPM PSD QOI SGI SPIDER SUN TGA WEBP XBM XPM XVTHUMB"
)
FORMATS = tuple(_FORMATS.split())
"""Formats that Pillow decodes by itself, from the bytes that it is given, in Pillow's own order."""
REFUSED = {
    "EPS": "a program in PostScript, which Ghostscript would have to run",
    "IPTC": "holds a file of any other format",
    "WMF": "drawing orders, which only Windows runs",
    "BUFR": "no picture",
    "GRIB": "no picture",
    "HDF5": "no picture",
    "MPEG": "a video",
    "FPX": "layers in a container that is read only where olefile is installed",
    "MIC": "layers in a container that is read only where olefile is installed",
}
"""What else has a plugin in Pillow, and why it is left out: some start a program, some open a file of any format."""
_STRIP_ROWS = 64
_ORIENTATION = 0x0112
_JPEG = b"\xff\xd8\xff"
_MAY_TURN = (b"Exif\0", b"tiff:Orientation")
"""Where the metadata may say that a picture lies on its side."""
_SUBSAMPLINGS = ("444", "422", "420")


class ImageConfig(BaseModel):
    """How a picture is decoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shorter_edge: int | None = Field(default=None, ge=16)
    """A JPEG is decoded at a half, a quarter or an eighth as long as both edges keep so many pixels; null: whole, the
    pixels that the processor is made for. Faster for large photographs, and the values change: compare them with your
    model first."""
    max_pixels: int = Field(default=178_956_970, ge=1)
    """Width x height by the header; a larger picture is a failure (``limit``) before it is decoded."""
    max_bytes: int = Field(default=512 << 20, ge=1)
    """A larger file is a failure (``limit``) before it is read."""
    background: tuple[int, int, int] = (255, 255, 255)
    """What shines through transparent pixels."""
    floats: Literal["refuse", "clip", "scale"] = "refuse"
    """Pictures of floats are read as [0, 1], or as [0, 255] where one is 2 or more. Any other range is a failure
    (``unsupported``), is cut to one of these, or is scaled: each picture by its own least and greatest value. NaN is
    black."""
    previews: bool = False
    """A camera's raw file (DNG, CR2, CR3, NEF, ARW...) is a failure (``unsupported``); True: its largest preview in
    JPEG is the picture."""
    truncated: bool = False
    """True: a truncated picture is kept, its missing part grey."""


class ImageMedia:
    """An opened picture; the header is read, the pixels are not."""

    def __init__(self, blob: Blob, config: ImageConfig) -> None:
        self.config = config
        check_bytes(blob, config)
        data = blob.read()
        if not data:
            raise SampleError("empty", "zero bytes")
        self.pillow: PIL.Image.Image | None = None
        self.turned = 1
        name = camera_raw.camera_raw(data)
        if name is not None and not config.previews:
            todo = "decoders.image.previews: true takes the preview in it"
            raise SampleError("unsupported", f"{name}, a camera's raw file: {todo}")
        if name is not None:
            self.turned = camera_raw.orientation(data)
            data = camera_raw.preview(data)
        self.data = data
        size_of_jpeg = plain_jpeg(data) if name is None else None
        self.plain = size_of_jpeg is not None
        format = "JPEG"
        if size_of_jpeg is not None:
            width, height = size_of_jpeg
        else:
            width, height, format = self._opened()
        if width * height > config.max_pixels:
            raise SampleError("limit", f"{width}x{height} pixels, over max_pixels {config.max_pixels}")
        self.info = MediaInfo(format, {"image": None})

    def _opened(self) -> tuple[int, int, str]:
        """Width, height, format, by Pillow, or by the video library for what only that reads."""
        try:
            with _pillow(self.data, self.config):
                self.pillow = _open(self.data)
                return *self.pillow.size, self.pillow.format or "image"
        except SampleError:
            if not is_heif(self.data):
                raise
            with _pillow(self.data, self.config):
                return *_container_size(self.data), "heif"

    def image(self) -> Image:
        """[H, W, 3] uint8. Raises ``SampleError`` in the decoder's words."""
        if self.plain and (pixels := jpeg_pixels(self.data, self.config.shorter_edge)) is not None:
            return Image(pixels)
        if self.plain:  # damaged: Pillow has the last word
            self.plain = False
            self._opened()
        with _pillow(self.data, self.config):
            return Image(_container_pixels(self.data) if self.pillow is None else self._pixels(self.pillow))

    def _pixels(self, picture: PIL.Image.Image) -> np.ndarray:
        from PIL import ImageFile, ImageOps

        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = self.config.truncated
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
        with contextlib.suppress(Exception):  # broken EXIF says nothing about the pixels
            if (turned := picture.getexif().get(_ORIENTATION, self.turned)) != 1:
                picture.getexif()[_ORIENTATION] = turned  # a preview's is that of its raw file
                picture = ImageOps.exif_transpose(picture)  # it copies those that stand upright too
        return to_rgb(picture, self.config)

    def close(self) -> None:
        if self.pillow is not None:
            self.pillow.close()


def check_bytes(blob: Blob, config: ImageConfig) -> None:
    """Raises ``SampleError`` (``limit``) for a file that is not read."""
    if blob.size() > config.max_bytes:
        raise SampleError("limit", f"{blob.size()} bytes of picture, over max_bytes {config.max_bytes}")


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


@contextlib.contextmanager
def _pillow(data: bytes, config: ImageConfig) -> Iterator[None]:
    """Whatever a plugin of Pillow raises becomes a ``SampleError`` in its words.

    Pillow's own limit stays, at ours: some headers (ICO) tell their true size only while decoding.
    """
    import PIL.Image

    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = -(-config.max_pixels // 2)  # it warns from there and refuses from twice that
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SampleError:
        raise
    except MemoryError as error:
        raise SampleError("memory", describe(error)) from error
    except PIL.Image.DecompressionBombError as error:
        raise SampleError("limit", f"{error} (max_pixels {config.max_pixels})") from error
    except Exception as error:  # UnicodeDecodeError, TypeError, SyntaxError, struct.error...
        unknown = isinstance(error, PIL.UnidentifiedImageError) and sniff(data[:HEAD_BYTES]) != "image"
        words = re.sub(r" <_io\.BytesIO object at \w+>", "", describe(error))
        raise SampleError("unsupported" if unknown else "corrupt", words) from error
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


def _open(data: bytes) -> PIL.Image.Image:
    import PIL.Image

    try:
        return PIL.Image.open(io.BytesIO(data), formats=_formats())
    except PIL.UnidentifiedImageError as error:
        for name, why in REFUSED.items():
            accepts = PIL.Image.OPEN[name][1] if name in PIL.Image.OPEN else None
            if accepts is not None and accepts(data[:16]):
                raise SampleError("unsupported", f"{name}: {why}") from error
        raise


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow has."""
    import PIL.Image

    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def to_rgb(picture: PIL.Image.Image, config: ImageConfig) -> np.ndarray:
    """[H, W, 3] uint8 of a picture of any mode; 16-bit and float greys are scaled to 8 bits."""
    import PIL.Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        grey = _grey8(np.asarray(picture), picture.mode, config.floats)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
        assert converted is not None, "it is None only where it works in place"
        picture = converted
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        layer = picture.convert("RGBA") if picture.mode != "RGBA" else picture
        if layer.getchannel("A").getextrema() != (255, 255):
            ground = PIL.Image.new("RGBA", layer.size, (*config.background, 255))
            ground.alpha_composite(layer)
            layer = ground
        picture = layer
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _grey8(values: np.ndarray, mode: str, floats: Literal["refuse", "clip", "scale"] = "refuse") -> np.ndarray:
    """16-bit and 32-bit greys by their full range; floats as ``ImageConfig.floats`` says.

    In strips of rows: a wider copy of the whole would take eight times the memory.
    """
    if mode == "F":
        zero, scale = _range_of_floats(values, floats)
    else:
        zero, scale = 0.0, 256 / 2**31 if values.max(initial=0) > 65535 else 1 / 257  # Pillow widens 16-bit greys
    done = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _STRIP_ROWS):
        wide = values[start : start + _STRIP_ROWS].astype(np.float64)
        strip = np.nan_to_num((wide - zero) * scale, nan=0.0, posinf=255.0, neginf=0.0)
        done[start : start + _STRIP_ROWS] = np.clip(np.round(strip), 0, 255)
    return done


def _range_of_floats(values: np.ndarray, floats: Literal["refuse", "clip", "scale"]) -> tuple[float, float]:
    """``(value that is black, factor to 8 bits)``. Raises ``SampleError`` (``unsupported``) where none is certain."""
    finite = np.isfinite(values)
    low = float(np.min(values, initial=np.inf, where=finite))
    top = float(np.max(values, initial=-np.inf, where=finite))
    if low > top:
        return 0.0, 1.0  # no number in it
    whole = 1.0 if top < 2 else 255.0
    level = whole / 255
    if -level / 2 <= low and top <= whole + level / 2:
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


def _container_size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture that only the video library reads (HEIC)."""
    import av

    with open_av(io.BytesIO(data), "mov") as container:
        stream = container.streams.video[0]
        if stream.disposition & av.stream.Disposition.dependent:  # FFmpeg would give the first tile for the picture
            raise SampleError("unsupported", "a picture of several tiles, which only a HEIF library puts together")
        return stream.width, stream.height


def _container_pixels(data: bytes) -> np.ndarray:
    with open_av(io.BytesIO(data), "mov") as container:
        for frame in container.decode(video=0):
            return upright(frame)
    raise SampleError("empty", "no picture in it")
