"""Text files: plain, HTML, SubRip, WebVTT and JSON segments. Bytes that are no text are refused, not guessed."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import SampleError, describe
from pipeline.media import MediaInfo, Span, Text
from pipeline.storage import Blob


class TextConfig(BaseModel):
    """How bytes become text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_other: Literal["fail", "detect", "replace"] = "detect"
    """Bytes that are not UTF-8: a failure; detected (UTF-16 and UTF-32 by their mark, else by
    statistics); or decoded with the replacement character."""
    html: Literal["strip", "keep"] = "strip"
    """Tags, scripts and styles of HTML are taken out, or kept as text."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """A larger file is a failure (``limit``)."""


@dataclass(frozen=True)
class Segment:
    """Words with their time, seconds."""

    start_s: float
    end_s: float
    text: str


class TextMedia:
    """An opened text: the whole, or the segments of a time span."""

    def __init__(self, blob: Blob, config: TextConfig) -> None:
        size = blob.size()
        if size > config.max_bytes:
            raise SampleError("limit", f"{size} bytes of text, over max_bytes {config.max_bytes}")
        name = blob.uri.lower()
        text = decode(blob.read(), config)
        self.segments = _segments(text, name)
        if self.segments is None and _is_html(text, name) and config.html == "strip":
            text = strip_html(text)
        if self.segments is not None:
            text = "\n".join(segment.text for segment in self.segments)
        if not text.strip():
            raise SampleError("empty", "no words in it")
        self.whole = text
        span = None
        if self.segments:
            span = Span(0.0, max(segment.end_s for segment in self.segments))
        self.info = MediaInfo("text", {"text": span})

    def text(self, start_s: float | None, end_s: float | None) -> Text:
        """The segments that overlap ``[start_s, end_s)``, a line each; everything where times are None."""
        if self.segments is None or start_s is None or end_s is None:
            return Text(self.whole)
        return Text("\n".join(s.text for s in self.segments if s.start_s < end_s and s.end_s > start_s))

    def close(self) -> None:
        """Nothing is held open."""


def decode(data: bytes, config: TextConfig) -> str:
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
    try:
        return _clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        if config.on_other == "fail":
            raise SampleError("encoding", describe(error)) from error
    if b"\0" in data:
        raise SampleError("corrupt", "binary data, no text")
    if config.on_other == "replace":
        return _clean(data.decode("utf-8-sig", errors="replace"))
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None:
        raise SampleError("encoding", "neither UTF-8 nor any encoding that could be told")
    return _clean(str(best))


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise SampleError("encoding", describe(error)) from error


def _clean(text: str) -> str:
    """Newlines as ``\\n``; NUL out, since no tokenizer and no C string knows it."""
    if text.count("\0") * 10 > len(text):
        raise SampleError("corrupt", "binary data, no text")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


class _Stripper(HTMLParser):
    _BLOCKS = frozenset(
        (
            *("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "header"),
            *("footer", "table", "ul", "ol", "dl", "dt", "dd", "title"),
        )
    )
    _SILENT = frozenset(("script", "style", "template", "noscript"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.silent += tag in self._SILENT
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in self._SILENT and self.silent > 0
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data)


def _is_html(text: str, name: str) -> bool:
    start = text[:200].lstrip().lower()
    return name.endswith((".html", ".htm", ".xhtml")) or start.startswith(("<!doctype html", "<html"))


def strip_html(text: str) -> str:
    """The words of an HTML page, a block a line."""
    parser = _Stripper()
    parser.feed(text)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)


_ARROW = re.compile(r"^\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_TAG = re.compile(r"<[^>\n]*>")


def _segments(text: str, name: str) -> list[Segment] | None:
    """Timed segments of SubRip, WebVTT and JSON; None for a text without times."""
    if name.endswith((".srt", ".vtt")) or text.startswith("WEBVTT"):
        return _cues(text)
    if name.endswith(".json"):
        return _json_segments(text)
    return None


def _cues(text: str) -> list[Segment] | None:
    """SubRip and WebVTT: blocks with a line ``start --> end``; notes, styles and tags are dropped."""
    segments = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").split("\n")
        at = next((i for i, line in enumerate(lines) if _ARROW.match(line)), None)
        if at is None or at > 1:
            continue
        times = _ARROW.match(lines[at])
        assert times is not None
        words = html.unescape(_TAG.sub("", "\n".join(lines[at + 1 :]))).strip()
        start, end = _seconds(times[1]), _seconds(times[2])
        if words and end > start:
            segments.append(Segment(start, end, words))
    if not segments and text.startswith("WEBVTT"):
        return []  # subtitles without a cue have no words
    return sorted(segments, key=lambda s: s.start_s) or None


def _seconds(stamp: str) -> float:
    """``hh:mm:ss,mmm`` or ``mm:ss.mmm`` in seconds."""
    try:
        total = 0.0
        for part in stamp.replace(",", ".").split(":"):
            total = total * 60 + float(part)
        return total
    except ValueError as error:
        raise SampleError("corrupt", f"time stamp {stamp!r}") from error


def _json_segments(text: str) -> list[Segment] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    items = value.get("segments") if isinstance(value, dict) else value
    if not isinstance(items, list) or not items:
        return None
    segments = []
    for item in items:
        if not isinstance(item, dict) or not {"start", "end", "text"} <= item.keys():
            return None
        try:
            segments.append(Segment(float(item["start"]), float(item["end"]), str(item["text"]).strip()))
        except (TypeError, ValueError) as error:
            raise SampleError("corrupt", f"segment {item!r}") from error
    return sorted((s for s in segments if s.text and s.end_s > s.start_s), key=lambda s: s.start_s) or None
