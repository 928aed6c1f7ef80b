"""The characters that the bytes of a text are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.errors import SampleError, describe

if TYPE_CHECKING:
    from pipeline.decoders.text import TextDecoderConfig


_LEAST_UNITS, _MOST_BLOCKS = 4, 6
"""Pairs of bytes, at least, and their high bytes, at most, that say for certain that a text is UTF-16."""
_BLANKS = dict.fromkeys(map(ord, " \t\n\r\f\v\xa0\u200b\u2028\u2029\ufeff"))
_COHERENT, _NEAR = 10.0, 5.0
"""Percent of `charset_normalizer`'s coherence: below it a guess is noise; so close, two guesses are equal."""


def decode(data: bytes, config: TextDecoderConfig) -> str:
    """Bytes to text with ``\\n`` newlines and no byte order mark.

    Raises:
        SampleError: ``empty``; ``encoding`` for what the policy refuses; ``corrupt`` for binary data.
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
    """The text, if the bytes are UTF-16 and can be nothing else: one byte of a pair is zero now and then and the other
    never, no pair lacks a meaning, and few blocks of 256 characters are used. So Chinese without a mark is not among
    them."""
    if len(data) % 2 or len(data) < 2 * _LEAST_UNITS or b"\0" not in data.rstrip(b"\0"):
        return None
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    low = 0 if pairs[:, 0].all() else 1
    if not pairs[:, low].all() or len(np.unique(pairs[:, 1 - low])) > _MOST_BLOCKS:
        return None
    try:
        text = data.decode("utf-16-le" if low == 0 else "utf-16-be")
    except UnicodeDecodeError:
        return None
    without = text.translate(_BLANKS)
    return text if without.isprintable() and without else None


def _by_statistics(data: bytes) -> str:
    """Text in the encoding that makes words of some language; of a few bytes nothing can be told, and it fails."""
    from charset_normalizer import from_bytes

    found = list(from_bytes(data))
    best = found[0].percent_coherence if found else 0.0
    if best < _COHERENT:
        raise SampleError(
            "encoding", "neither UTF-8 nor any encoding that could be told: declare it as decoders.text.encoding"
        )
    near = [one for one in found if one.percent_coherence >= best - _NEAR]
    # Several encodings differ in a few letters only; then the one that is by far the most common.
    return str(next((one for one in near if "cp1252" in one.could_be_from_charset), near[0]))


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise SampleError("encoding", describe(error)) from error


def _clean(text: str) -> str:
    """Newlines as ``\\n``; NUL out, since no tokenizer and no C string knows it."""
    if text.count("\0") * 10 > len(text):
        raise SampleError("corrupt", "binary data, no text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
