"""Text files: plain, HTML, SubRip, WebVTT and JSON segments. Bytes that are no text are refused, not guessed."""

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
from pipeline.decoders._shared.html import _is_html, strip_html
from pipeline.decoders._shared.timed_text import _segments
from pipeline.storage.blob import Blob


class TextDecoderConfig(BaseModel):
    """How bytes become text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_other: Literal["fail", "detect", "replace"] = "detect"
    """Bytes that are not UTF-8: a failure; detected (UTF-16 and UTF-32 by their mark, UTF-16 without one where it can
    be nothing else, else ``encoding``, else by statistics where the text is long enough for them); or decoded with the
    replacement character."""
    encoding: str | None = None
    """What bytes are that are not UTF-8, such as ``cp1252``; null: statistics tell, or the file fails."""
    html: Literal["strip", "keep"] = "strip"
    """Tags, scripts and styles of HTML are taken out, or kept as text."""
    svg: Literal["refuse", "keep"] = "refuse"
    """A drawing in SVG is a failure (``unsupported``), or kept as the text of its source."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """A larger file is a failure (``limit``)."""
    max_characters: int = Field(default=16 << 20, ge=1)
    """A longer text, of a file or of a manifest, is a failure (``limit``): tokenizers read all of it before cutting."""

    def check_length(self, text: str) -> None:
        """Raises ``SampleError``: ``limit``."""
        if len(text) > self.max_characters:
            raise SampleError("limit", f"{len(text)} characters of text, over max_characters {self.max_characters}")

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                "a".encode(name)
            except LookupError as error:
                raise NotAllowed(
                    f"found {name!r}", "a name that Python knows, such as cp1252, koi8-r, gb18030"
                ) from error
        return name


_SVG = re.compile(r"<!DOCTYPE\s+(?:svg:)?svg\b|<(?:svg:)?svg[\s>]", re.IGNORECASE)
_LEADS = {"<!--": "-->", "<?": ">"}
"""What may come before the root of an XML file, and how it ends."""
_MOST_LEADS = 100


class TextMedia:
    """An opened text: the whole, or the segments of a time span."""

    def __init__(self, blob: Blob, config: TextDecoderConfig) -> None:
        size = blob.size()
        if size > config.max_bytes:
            raise SampleError("limit", f"{size} bytes of text, over max_bytes {config.max_bytes}")
        name = blob.uri.lower()
        text = decode(blob.read(config.max_bytes), config)
        if config.svg == "refuse" and is_svg(text):
            raise SampleError("unsupported", "a drawing in SVG: decoders.text.svg: keep takes its source for text")
        self.segments = _segments(text, name)
        if self.segments is None and _is_html(text, name) and config.html == "strip":
            text = strip_html(text)
        if self.segments is not None:
            text = "\n".join(segment.text for segment in self.segments)
        if not text.strip():
            raise SampleError("empty", "no words in it")
        config.check_length(text)
        self.whole = text
        span = None
        if self.segments:
            span = Span(0.0, max(segment.end_s for segment in self.segments))
        self.starts = [segment.start_s for segment in self.segments or ()]
        self.reached = list(accumulate((segment.end_s for segment in self.segments or ()), max))
        self.ends = np.array([segment.end_s for segment in self.segments or ()])
        words = tuple(Span(segment.start_s, segment.end_s) for segment in self.segments or ())
        self.info = MediaInfo("text", {"text": span}, words)

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        """The segments that overlap ``[start_s, end_s)``, a line each; everything where times are None."""
        if self.segments is None or start_s is None or end_s is None:
            return Text(self.whole)
        # they are sorted by their start: none before the first whose end, or an earlier one's, lies behind start_s
        first, last = bisect_right(self.reached, start_s), bisect_left(self.starts, end_s)
        overlap = first + np.flatnonzero(self.ends[first:last] > start_s)
        return Text("\n".join(self.segments[i].text for i in overlap))

    def close(self) -> None:
        """Nothing is held open."""


def is_svg(text: str) -> bool:
    """Returns whether a text is a drawing in SVG, by its root element; in time linear in what comes before that."""
    at = 0
    for _ in range(_MOST_LEADS):
        while at < len(text) and text[at].isspace():
            at += 1
        end = next((end for begin, end in _LEADS.items() if text.startswith(begin, at)), None)
        if end is None:
            return _SVG.match(text, at) is not None
        at = text.find(end, at)
        if at < 0:
            return False
        at += len(end)
    return False
