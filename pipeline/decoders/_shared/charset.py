"""Decodes the bytes of a text: detects their encoding and normalises newlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.errors import SampleError, describe

if TYPE_CHECKING:
    from pipeline.decoders.text import TextDecoderConfig


_MIN_UNITS, _MAX_BLOCKS = 4, 6
"""A text is certainly UTF-16 only with at least so many byte pairs, and at most so many different high bytes."""
_BLANKS = dict.fromkeys(map(ord, " \t\n\r\f\v\xa0\u200b\u2028\u2029\ufeff"))
_MIN_COHERENCE, _COHERENCE_TOLERANCE = 10.0, 5.0
"""Coherence of `charset_normalizer`, percent: a guess below the minimum is noise; guesses within the tolerance of the
best are equally likely."""


def decode(data: bytes, config: TextDecoderConfig) -> str:
    """Decodes bytes to text with ``\\n`` newlines and without a byte order mark.

    Raises:
        SampleError: ``empty``; ``encoding`` for an encoding that the config refuses; ``corrupt`` for binary data.
    """
    if not data.strip(b"\0 \t\r\n"):
        raise SampleError("empty", "no bytes but blanks" if data else "zero bytes")
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark) and config.on_other == "detect":
            return _clean(_strict(data, encoding))
    if config.on_other == "detect" and (plain := _utf16_without_mark(data)) is not None:
        return _clean(plain)
    try:
        return _clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        if config.on_other == "fail":
            raise SampleError("encoding", describe(error)) from error
    if b"\0" in data:
        raise SampleError("corrupt", "binary data, no text")
    if config.on_other == "replace":
        return _clean(data.decode("utf-8-sig", errors="replace"))
    if config.encoding is not None:
        return _clean(_strict(data, config.encoding))
    return _clean(_by_statistics(data))


def _utf16_without_mark(data: bytes) -> str | None:
    """The text, if the bytes can be nothing but UTF-16; else None.

    One byte of the pairs is sometimes zero and the other never, all pairs are valid characters, and few blocks of 256
    characters are used. Chinese text without a byte order mark is therefore not detected.
    """
    if len(data) % 2 or len(data) < 2 * _MIN_UNITS or b"\0" not in data.rstrip(b"\0"):
        return None
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    low = 0 if pairs[:, 0].all() else 1
    if not pairs[:, low].all() or len(np.unique(pairs[:, 1 - low])) > _MAX_BLOCKS:
        return None
    try:
        text = data.decode("utf-16-le" if low == 0 else "utf-16-be")
    except UnicodeDecodeError:
        return None
    without = text.translate(_BLANKS)
    return text if without.isprintable() and without else None


def _by_statistics(data: bytes) -> str:
    """Text in the encoding in which it resembles some language. Raises ``SampleError`` if there are too few bytes."""
    from charset_normalizer import from_bytes

    found = list(from_bytes(data))
    best = found[0].percent_coherence if found else 0.0
    if best < _MIN_COHERENCE:
        raise SampleError(
            "encoding", "neither UTF-8 nor any encoding that could be detected: declare it as decoders.text.encoding"
        )
    near = [one for one in found if one.percent_coherence >= best - _COHERENCE_TOLERANCE]
    # Several encodings differ in a few letters only. cp1252 is by far the most common of them.
    return str(next((one for one in near if "cp1252" in one.could_be_from_charset), near[0]))


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise SampleError("encoding", describe(error)) from error


def _clean(text: str) -> str:
    """Normalises newlines to ``\\n`` and removes NUL, which tokenizers and C strings cannot represent."""
    if text.count("\0") * 10 > len(text):
        raise SampleError("corrupt", "binary data, no text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
