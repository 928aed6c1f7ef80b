"""Finds quoted fields of a CSV that are never closed, while the file is read in pieces."""

from __future__ import annotations

import re

from pipeline.core.errors import one_line
from pipeline.sources._tables.text_table import MAX_REASON


class QuoteTracker:
    """Tracks whether a CSV, fed in pieces, ends inside a quoted field.

    Follows the rules of pyarrow: a quote opens a field only at the field's start, and two quotes inside a quoted field
    are one character.
    """

    def __init__(self, separator: str) -> None:
        ends = rb"\r\n" + re.escape(separator.encode())
        rest = rb'(?:[^"]++|"")*+("?+) *+([^' + ends + rb"]?+)"  # blanks may follow a closing quote
        self.fields = re.compile(
            rb'"(?<=[' + ends + rb']")' + rest
        )  # the quote before the look-behind: a literal is faster to search
        self.rest = re.compile(rest)
        self.inside, self.beginning, self.lines = False, b"", False
        """Whether a quoted field is open; its first bytes; whether it contains a line break."""
        self.odd: str | None = None
        """The beginning of a field of several lines that continues after its closing quote. Such a quote usually opens
        another field, so that the quote before it is the one that is never closed."""
        self.kept = b""
        """The end of the input so far: one byte, and trailing quotes, whose meaning depends on the next byte."""

    @property
    def is_open(self) -> bool:
        """Whether the input ends inside a quoted field."""
        return self._state(self.kept)

    def feed(self, piece: bytes) -> None:
        """Reads the next piece of the file."""
        if not self.kept:
            self.kept, piece = b"\n", piece.removeprefix(b"\xef\xbb\xbf")
        if b'"' not in piece and b'"' not in self.kept and not self.inside:
            self.kept = piece[-1:] or self.kept
            return
        data = self.kept + piece
        body = data.rstrip(b'"')
        self.inside = self._state(body)
        quotes = len(data) - len(body)
        self.kept = body[-1:] + b'"' * (quotes if quotes < 3 else 2 - quotes % 2)

    def _state(self, data: bytes) -> bool:
        """Returns whether a field is open at the end of ``data``, whose first byte was read before."""
        at, is_open = 1, False
        if self.inside:
            found = self.rest.match(data, at)
            assert found is not None, "the pattern also matches no bytes"
            is_open = self._read_field(found, self.beginning, self.lines)
            at = found.end()
        for found in self.fields.finditer(data, at):
            is_open = not found[1]
            if is_open or found[2]:
                self._read_field(found, b"", False)
        return is_open

    def _read_field(self, found: re.Match[bytes], beginning: bytes, lines: bool) -> bool:
        """Returns whether a field stays open; sets ``odd`` if it continues after its closing quote."""
        beginning, lines = (beginning + found[0])[:MAX_REASON], lines or b"\n" in found[0] or b"\r" in found[0]
        if found[1] and found[2] and lines and self.odd is None:
            self.odd = one_line(beginning.decode("utf-8", "replace"), 40)
        self.beginning, self.lines = beginning, lines
        return not found[1]
