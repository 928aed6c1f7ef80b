"""Parses texts with times: subtitles (SRT, VTT) and JSON segments."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass

from pipeline.core.errors import SampleError, one_line
from pipeline.decoders._shared.html import unescape


@dataclass(frozen=True)
class Segment:
    """Words and their time span, seconds."""

    start_s: float
    end_s: float
    text: str


_ARROW = re.compile(r"^\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>|<\d[\d:.]*>")
"""Tags in subtitles: styles, voices and the times of karaoke; does not match the comparison in "a < b and c > d"."""
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_SHORTEST_S = 0.001


def parse_segments(text: str, name: str) -> list[Segment] | None:
    """The timed segments of SubRip, WebVTT or JSON, by start; None for a text without times."""
    if name.endswith((".srt", ".vtt")) or text.startswith("WEBVTT"):
        return _cues(text)
    if name.endswith(".json"):
        return _json_segments(text)
    return None


def _cues(text: str) -> list[Segment] | None:
    """Segments of SubRip and WebVTT: blocks with a line ``start --> end``. Notes, styles and tags are dropped."""
    cues: list[tuple[str, str, list[str]]] = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").split("\n")
        at = next((i for i, line in enumerate(lines[:2]) if _ARROW.match(line)), None)
        if at is not None:
            times = _ARROW.match(lines[at])
            assert times is not None
            cues.append((times[1], times[2], lines[at + 1 :]))
        elif cues and not _NO_CUE.match(lines[0]):  # a blank line within the previous cue
            cues[-1][2].extend(lines)
    segments = []
    for begin, stop, lines in cues:
        words = unescape(_TAG.sub("", "\n".join(lines))).strip()
        start, end = _seconds(begin), _seconds(stop)
        if words and end >= start:
            segments.append(Segment(start, max(end, start + _SHORTEST_S), words))
    if not segments and text.startswith("WEBVTT"):
        return []  # subtitles without a cue have no words
    return sorted(segments, key=lambda s: s.start_s) or None


def _seconds(stamp: str) -> float:
    """Seconds of ``hh:mm:ss,mmm`` or ``mm:ss.mmm``."""
    try:
        total = 0.0
        for part in stamp.replace(",", ".").split(":"):
            total = total * 60 + float(part)
        return total
    except ValueError as error:
        raise SampleError("corrupt", f"time stamp {stamp!r}") from error


def _replace_surrogates(text: str) -> str:
    """``text`` with lone surrogates replaced. JSON may contain them as escapes, but no encoding can store them."""
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
            segments.append(
                Segment(float(item["start"]), float(item["end"]), _replace_surrogates(str(item["text"])).strip())
            )
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SampleError("corrupt", one_line(f"segment {reprlib.repr(item)}", 200)) from error
    return sorted((s for s in segments if s.text and s.end_s > s.start_s), key=lambda s: s.start_s) or None
