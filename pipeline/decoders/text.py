"""Text files: plain, HTML, SubRip, WebVTT and JSON segments. Bytes that are no text are refused, not guessed."""

from __future__ import annotations

import html
import json
import re
import reprlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.core.errors import NotAllowed, SampleError, describe, one_line
from pipeline.core.media import MediaInfo, Span, Text
from pipeline.storage.blob import Blob


class TextConfig(BaseModel):
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
_LEAST_UNITS, _MOST_BLOCKS = 4, 6
"""Pairs of bytes, at least, and their high bytes, at most, that say for certain that a text is UTF-16."""
_BLANKS = dict.fromkeys(map(ord, " \t\n\r\f\v\xa0\u200b\u2028\u2029\ufeff"))
_COHERENT, _NEAR = 10.0, 5.0
"""Percent of `charset_normalizer`'s coherence: below it a guess is noise; so close, two guesses are equal."""


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


def _is_html(text: str, name: str) -> bool:
    start = text[:200].lstrip().lower()
    return name.endswith((".html", ".htm", ".xhtml")) or start.startswith(("<!doctype html", "<html"))


_BLOCK = re.compile(
    r"</?(?:p|div|br|li|tr|h[1-6]|section|article|header|footer|table|ul|ol|dl|dt|dd|title)(?![\w-])", re.IGNORECASE
)
_SILENT = re.compile(r"<(script|style|template|noscript)(?![\w-])", re.IGNORECASE)
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")
_QUOTE_OR_END = re.compile(r"[\"'>]")


def strip_html(text: str) -> str:
    """The words of an HTML page, a block a line, in time linear in its length, whatever is left open.

    As in HTML's own rules a comment, a tag or a script that is never closed reaches to the end.
    """
    parts, at = [], 0
    while (found := _MARKUP.search(text, at)) is not None:
        parts.append(_unescaped(text[at : found.start()]))
        start = found.start()
        if _BLOCK.match(text, start):
            parts.append("\n")
        silent = _SILENT.match(text, start)
        at = _markup_end(text, start)
        if silent is not None:
            end = re.compile(rf"</{silent[1]}(?![\w-])", re.IGNORECASE).search(text, at)
            at = len(text) if end is None else end.start()
    parts.append(_unescaped(text[at:]))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _unescaped(text: str) -> str:
    """``text`` with the characters that its references name. Raises ``SampleError``: ``corrupt``."""
    try:
        return html.unescape(text)
    except ValueError as error:  # Python reads no number of more than 4300 digits
        raise SampleError(
            "corrupt", f"a character reference that is no character ({one_line(str(error), 80)})"
        ) from error


def _markup_end(text: str, start: int) -> int:
    """Where the comment, declaration or tag at ``start`` ends."""
    if text.startswith("<!--", start):
        end = text.find("-->", start + 2)
        return len(text) if end < 0 else end + 3
    if text[start + 1] in "!?":
        end = text.find(">", start)
        return len(text) if end < 0 else end + 1
    at = start + 1
    while (found := _QUOTE_OR_END.search(text, at)) is not None:
        if found[0] == ">":
            return found.end()
        at = found.end()
        if text[found.start() - 1] in "= \t\n":  # a quoted value may hold a ">"
            close = text.find(found[0], at)
            at = len(text) if close < 0 else close + 1
    return len(text)


_ARROW = re.compile(r"^\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>|<\d[\d:.]*>")
"""Of subtitles: styles and voices, and the times of karaoke; not the comparison in "a < b and c > d"."""
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_SHORTEST_S = 0.001


def _segments(text: str, name: str) -> list[Segment] | None:
    """Timed segments of SubRip, WebVTT and JSON; None for a text without times."""
    if name.endswith((".srt", ".vtt")) or text.startswith("WEBVTT"):
        return _cues(text)
    if name.endswith(".json"):
        return _json_segments(text)
    return None


def _cues(text: str) -> list[Segment] | None:
    """SubRip and WebVTT: blocks with a line ``start --> end``; notes, styles and tags are dropped."""
    cues: list[tuple[str, str, list[str]]] = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").split("\n")
        at = next((i for i, line in enumerate(lines[:2]) if _ARROW.match(line)), None)
        if at is not None:
            times = _ARROW.match(lines[at])
            assert times is not None
            cues.append((times[1], times[2], lines[at + 1 :]))
        elif cues and not _NO_CUE.match(lines[0]):  # a blank line stands inside the cue before
            cues[-1][2].extend(lines)
    segments = []
    for begin, stop, lines in cues:
        words = _unescaped(_TAG.sub("", "\n".join(lines))).strip()
        start, end = _seconds(begin), _seconds(stop)
        if words and end >= start:
            segments.append(Segment(start, max(end, start + _SHORTEST_S), words))
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


def _whole(text: str) -> str:
    """``text`` without halves of characters, which JSON may escape and no encoding holds."""
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")


def _json_segments(text: str) -> list[Segment] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = value.get("segments") if isinstance(value, dict) else value
    if not isinstance(items, list) or not items:
        return None
    segments = []
    for item in items:
        if not isinstance(item, dict) or not {"start", "end", "text"} <= item.keys():
            return None
        try:
            segments.append(Segment(float(item["start"]), float(item["end"]), _whole(str(item["text"])).strip()))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SampleError("corrupt", one_line(f"segment {reprlib.repr(item)}", 200)) from error
    return sorted((s for s in segments if s.text and s.end_s > s.start_s), key=lambda s: s.start_s) or None
