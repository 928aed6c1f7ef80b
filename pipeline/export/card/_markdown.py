"""Untrusted text in Markdown: it is shown as it is, and has no effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([^A-Za-z0-9 ,;'\"%?\u0080-\U0010ffff])")
"""ASCII punctuation that has an effect. A backslash before it makes it plain: no markup, no HTML, no link
(https://spec.commonmark.org/0.31.2/#backslash-escapes)."""
_PLAIN = re.compile(r"[A-Za-z0-9 _./:+=,()<>\[\]@-]+")
"""Texts that have no effect between backticks, and no vertical line."""


def plain(text: str) -> str:
    """Returns ``text``, which is one line, with its punctuation escaped."""
    return _MARKS.sub(r"\\\1", text)


def code(text: str) -> str:
    """Returns ``text``, which is one line, as code, or as plain text if it has other characters than names have."""
    if not text:
        return ""
    return f"`{text}`" if _PLAIN.fullmatch(text) and text == text.strip() else plain(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table. Names of columns and cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
