"""Text files: plain text, HTML, SubRip, WebVTT and JSON segments. Binary data is refused."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.core.errors import NotAllowed, SampleError
from pipeline.core.media import MediaInfo, Span, Text
from pipeline.decoders._shared.charset import decode
from pipeline.decoders._shared.html import is_html, strip_html
from pipeline.decoders._shared.timed_text import parse_segments
from pipeline.storage.blob import Blob


class TextDecoderConfig(BaseModel):
    """How bytes are decoded to text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_other: Literal["fail", "detect", "replace"] = "detect"
    """Bytes that are not UTF-8. ``fail``: a failure. ``replace``: decoded with the replacement character. ``detect``:
    decoded as UTF-16 or UTF-32 if they begin with a byte order mark, as UTF-16 if nothing else is possible, else as
    ``encoding``, else by statistics if the text is long enough."""
    encoding: str | None = None
    """Encoding of bytes that are not UTF-8, such as ``cp1252``; null: detected by statistics, or the file fails."""
    html: Literal["strip", "keep"] = "strip"
    """``strip``: removes tags, scripts and styles of HTML. ``keep``: keeps them as text."""
    svg: Literal["refuse", "keep"] = "refuse"
    """An SVG drawing. ``refuse``: a failure (``unsupported``). ``keep``: its source is the text."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """Maximum file size; a larger file is a failure (``limit``)."""
    max_characters: int = Field(default=16 << 20, ge=1)
    """Maximum length of a text in a file or a manifest; a longer one is a failure (``limit``), because tokenizers read
    all of it before they truncate it."""

    def check_length(self, text: str) -> None:
        """Raises ``SampleError`` (``limit``) for a text that is too long."""
        if len(text) > self.max_characters:
            raise SampleError("limit", f"{len(text)} characters of text, over max_characters {self.max_characters}")

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                "a".encode(name)
            except LookupError as error:
                raise NotAllowed(
                    f"found {name!r}", "a name that Python knows, such as cp1252, koi8-r, gb18030"
                ) from error
        return name


_SVG = re.compile(r"<!DOCTYPE\s+(?:svg:)?svg\b|<(?:svg:)?svg[\s>]", re.IGNORECASE)
_PROLOG = {"<!--": "-->", "<?": ">"}
"""What may come before the root element of an XML file: its beginning and its end."""
_MAX_PROLOG = 100


class TextMedia:
    """An open text file: the whole text, or its timed segments."""

    def __init__(self, blob: Blob, config: TextDecoderConfig) -> None:
        size = blob.size()
        if size > config.max_bytes:
            raise SampleError("limit", f"{size} bytes of text, over max_bytes {config.max_bytes}")
        name = blob.uri.lower()
        text = decode(blob.read(config.max_bytes), config)
        if config.svg == "refuse" and is_svg(text):
            raise SampleError("unsupported", "a drawing in SVG: decoders.text.svg: keep takes its source for text")
        self.segments = parse_segments(text, name)
        if self.segments is None and is_html(text, name) and config.html == "strip":
            text = strip_html(text)
        if self.segments is not None:
            text = "\n".join(segment.text for segment in self.segments)
        if not text.strip():
            raise SampleError("empty", "no words in it")
        config.check_length(text)
        self.full_text = text
        span = None
        if self.segments:
            span = Span(0.0, max(segment.end_s for segment in self.segments))
        self.starts = [segment.start_s for segment in self.segments or ()]
        self.max_ends = list(accumulate((segment.end_s for segment in self.segments or ()), max))
        self.ends = np.array([segment.end_s for segment in self.segments or ()])
        words = tuple(Span(segment.start_s, segment.end_s) for segment in self.segments or ())
        self.info = MediaInfo("text", {"text": span}, words)

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        """The segments that overlap ``[start_s, end_s)``, one per line; the whole text if the times are None."""
        if self.segments is None or start_s is None or end_s is None:
            return Text(self.full_text)
        # segments are sorted by start; ``max_ends`` is the running maximum of their ends, so it is sorted too
        first, last = bisect_right(self.max_ends, start_s), bisect_left(self.starts, end_s)
        overlap = first + np.flatnonzero(self.ends[first:last] > start_s)
        return Text("\n".join(self.segments[i].text for i in overlap))

    def close(self) -> None:
        """Nothing to close."""


def is_svg(text: str) -> bool:
    """True if the root element of a text is an SVG drawing. Takes time linear in the length of what precedes it."""
    at = 0
    for _ in range(_MAX_PROLOG):
        while at < len(text) and text[at].isspace():
            at += 1
        end = next((end for begin, end in _PROLOG.items() if text.startswith(begin, at)), None)
        if end is None:
            return _SVG.match(text, at) is not None
        at = text.find(end, at)
        if at < 0:
            return False
        at += len(end)
    return False
