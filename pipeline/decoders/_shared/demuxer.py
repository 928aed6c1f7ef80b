"""Opens files with FFmpeg, without access to other files, and refuses formats that FFmpeg only guesses."""

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
"""FFmpeg's warning about a format with a score of 25 of 100 or less. PyAV does not expose the score otherwise."""


@contextmanager
def decoding() -> Iterator[None]:
    """Converts any exception of a decoder to a ``SampleError`` with its message."""
    try:
        yield
    except SampleError:
        raise
    except MemoryError as error:
        raise SampleError("memory", describe(error)) from error
    except Exception as error:  # decoders raise UnicodeDecodeError, TypeError, SyntaxError...
        raise SampleError("corrupt", describe(error)) from error


def open_av(file: BinaryIO, format: str | None = None) -> av.container.InputContainer:
    """Opens a file with FFmpeg. FFmpeg may not open other files or addresses that the file names.

    Args:
        format: name of the format; None: detected by the content.

    Raises:
        SampleError: ``unsupported``, for a list of other files.
        Exception: any other error of FFmpeg; call it within `decoding`.
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
    """Raises ``SampleError`` (``unsupported``) for a file whose format FFmpeg only guesses.

    Bytes of a document or an archive may resemble media. It is for files whose first bytes match no known format.
    """
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
    """Options that allow FFmpeg all formats but lists, and no protocol to open anything else by name."""
    import av

    return {"protocol_whitelist": "none", "format_whitelist": ",".join(sorted(av.formats_available - _LISTS))}
