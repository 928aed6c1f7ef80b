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
from pipeline.decoders._shared import camera_raw
from pipeline.decoders._shared.demuxer import open_av
from pipeline.decoders._shared.jpeg import jpeg_pixels, plain_jpeg
from pipeline.decoders._shared.rgb import to_rgb
from pipeline.decoders._shared.rotation import upright
from pipeline.decoders._shared.sniff import HEAD_BYTES, is_heif, sniff
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
_ORIENTATION = 0x0112


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
