"""Still images of all modes that Pillow reads, turned upright, as 8-bit RGB; the first frame of an animation."""

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
"""Formats that Pillow decodes without other programs or files, in Pillow's order."""
REFUSED = {
    "EPS": "a program in PostScript, which Ghostscript would have to run",
    "IPTC": "holds a file of any other format",
    "WMF": "drawing commands, which only Windows runs",
    "BUFR": "no picture",
    "GRIB": "no picture",
    "HDF5": "no picture",
    "MPEG": "a video",
    "FPX": "layers in a container that is read only where olefile is installed",
    "MIC": "layers in a container that is read only where olefile is installed",
}
"""Other formats with a plugin in Pillow, and why they are refused: some start a program, some open any other file."""
_ORIENTATION = 0x0112


class ImageConfig(BaseModel):
    """How a picture is decoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shorter_edge: int | None = Field(default=None, ge=16)
    """A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size at which both edges have at least this many
    pixels. null: at full size, for which the processor is made. A value is faster for large photographs but changes the
    result: compare with your model first."""
    max_pixels: int = Field(default=178_956_970, ge=1)
    """Maximum width x height in the header; a larger picture is a failure (``limit``) and is not decoded."""
    max_bytes: int = Field(default=512 << 20, ge=1)
    """Maximum file size; a larger file is a failure (``limit``) and is not read."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour behind transparent pixels."""
    floats: Literal["refuse", "clip", "scale"] = "refuse"
    """Float values are taken as [0, 1], or as [0, 255] if any is 2 or more. Values outside that range: ``refuse``: a
    failure (``unsupported``); ``clip``: clipped to it; ``scale``: each picture is scaled by its own minimum and
    maximum. NaN is black."""
    previews: bool = False
    """False: a camera's raw file (DNG, CR2, CR3, NEF, ARW...) is a failure (``unsupported``). True: its largest JPEG
    preview is decoded."""
    truncated: bool = False
    """True: a truncated picture is decoded, with its missing part grey. False: it is a failure."""


class ImageMedia:
    """An open picture. The constructor reads the header; ``image`` decodes the pixels."""

    def __init__(self, blob: Blob, config: ImageConfig) -> None:
        self.config = config
        check_bytes(blob, config)
        data = blob.read()
        if not data:
            raise SampleError("empty", "zero bytes")
        self.pillow: PIL.Image.Image | None = None
        self.orientation = 1
        name = camera_raw.camera_raw(data)
        if name is not None and not config.previews:
            hint = "decoders.image.previews: true takes the preview in it"
            raise SampleError("unsupported", f"{name}, a camera's raw file: {hint}")
        if name is not None:
            self.orientation = camera_raw.orientation(data)
            data = camera_raw.preview(data)
        self.data = data
        jpeg_size = plain_jpeg(data) if name is None else None
        self.is_plain_jpeg = jpeg_size is not None
        format = "JPEG"
        if jpeg_size is not None:
            width, height = jpeg_size
        else:
            width, height, format = self._open()
        if width * height > config.max_pixels:
            raise SampleError("limit", f"{width}x{height} pixels, over max_pixels {config.max_pixels}")
        self.info = MediaInfo(format, {"image": None})

    def _open(self) -> tuple[int, int, str]:
        """Width, height and format, from Pillow, or from FFmpeg for HEIC."""
        try:
            with _pillow(self.data, self.config):
                self.pillow = _open_pillow(self.data)
                return *self.pillow.size, self.pillow.format or "image"
        except SampleError:
            if not is_heif(self.data):
                raise
            with _pillow(self.data, self.config):
                return *_container_size(self.data), "heif"

    def image(self) -> Image:
        """The pixels [H, W, 3] uint8. Raises ``SampleError`` with the decoder's message."""
        if self.is_plain_jpeg and (pixels := jpeg_pixels(self.data, self.config.shorter_edge)) is not None:
            return Image(pixels)
        if self.is_plain_jpeg:  # damaged; Pillow decides
            self.is_plain_jpeg = False
            self._open()
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
        with contextlib.suppress(Exception):  # the pixels may be intact if EXIF is broken
            if (orientation := picture.getexif().get(_ORIENTATION, self.orientation)) != 1:
                picture.getexif()[_ORIENTATION] = orientation  # a preview has that of its raw file
                picture = ImageOps.exif_transpose(picture)  # not for 1, because it copies upright pictures too
        return to_rgb(picture, self.config)

    def close(self) -> None:
        if self.pillow is not None:
            self.pillow.close()


def check_bytes(blob: Blob, config: ImageConfig) -> None:
    """Raises ``SampleError`` (``limit``) for a file that is too large to be read."""
    if blob.size() > config.max_bytes:
        raise SampleError("limit", f"{blob.size()} bytes of picture, over max_bytes {config.max_bytes}")


@contextlib.contextmanager
def _pillow(data: bytes, config: ImageConfig) -> Iterator[None]:
    """Converts exceptions of Pillow's plugins to ``SampleError``.

    Sets Pillow's own limit on pixels to ``max_pixels``, because some formats (ICO) show their true size only while they
    are decoded.
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
        message = re.sub(r" <_io\.BytesIO object at \w+>", "", describe(error))
        raise SampleError("unsupported" if unknown else "corrupt", message) from error
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


def _open_pillow(data: bytes) -> PIL.Image.Image:
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
    """The members of ``FORMATS`` that this build of Pillow supports."""
    import PIL.Image

    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def _container_size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture that FFmpeg reads and Pillow does not (HEIC)."""
    import av

    with open_av(io.BytesIO(data), "mov") as container:
        stream = container.streams.video[0]
        if stream.disposition & av.stream.Disposition.dependent:  # FFmpeg would decode the first tile only
            raise SampleError("unsupported", "a picture of several tiles, which only a HEIF library puts together")
        return stream.width, stream.height


def _container_pixels(data: bytes) -> np.ndarray:
    with open_av(io.BytesIO(data), "mov") as container:
        for frame in container.decode(video=0):
            return upright(frame)
    raise SampleError("empty", "no picture in it")
