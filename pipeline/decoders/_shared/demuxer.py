"""Opening a file with FFmpeg: what it may read, and whether it knows the format or only guesses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from pipeline.core.errors import SampleError, describe

if TYPE_CHECKING:
    import av

_LISTS = frozenset(
    (
        *("concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtp_mpegts", "rtsp", "sap", "sdp", "vobsub"),
        "webm_dash_manifest",
    )
)
"""Formats whose files name other files, addresses or filters."""
_NOT_ALLOWED = "Format not on whitelist"
_LOW_SCORE = "detected only with low score of "
"""FFmpeg's warning where a format has a score of 25 of 100 or less. PyAV has no other way to the score."""


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder raises becomes a ``SampleError`` in its own words."""
    try:
        yield
    except SampleError:
        raise
    except MemoryError as error:
        raise SampleError("memory", describe(error)) from error
    except Exception as error:  # decoders raise UnicodeDecodeError, TypeError, SyntaxError...
        raise SampleError("corrupt", describe(error)) from error


def open_av(file: BinaryIO, format: str | None = None) -> av.container.InputContainer:
    """An open file as a container of FFmpeg's, which follows no name that it finds inside.

    Args:
        format: None: by its content.

    Raises:
        SampleError: ``unsupported``, a list of other files.
        Exception: whatever FFmpeg raises: call it within `decoding`.
    """
    import av

    try:
        return av.open(file, format=format, metadata_errors="replace", container_options=_options())
    except av.FFmpegError as error:
        if _NOT_ALLOWED not in str(error):
            raise
        name = error.log[1] if error.log else "it"
        raise SampleError("unsupported", f"{name}: a list of other files, not media") from None


def check_format(file: BinaryIO) -> None:
    """Raises ``SampleError`` (``unsupported``) for a file whose format FFmpeg only guesses: some bytes of a document or
    an archive look like media. For files of which the first bytes do not say what they are."""
    import av.logging

    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logs, decoding(), open_av(file) as container:
            name = container.format.name
    finally:
        av.logging.set_skip_repeated(skips)
        av.logging.set_level(level)
        file.seek(0)
    for _, _, message in logs:
        if _LOW_SCORE in message:
            score = message.partition(_LOW_SCORE)[2].partition(",")[0]
            raise SampleError("unsupported", f"no known media: FFmpeg guesses {name}, with a score of {score} of 100")


@cache
def _options() -> dict[str, str]:
    """What FFmpeg may do with a file: read it by its format, if that is no list, and open nothing else by any name."""
    import av

    return {"protocol_whitelist": "none", "format_whitelist": ",".join(sorted(av.formats_available - _LISTS))}
