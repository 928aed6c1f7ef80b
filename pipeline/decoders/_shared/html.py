"""HTML to plain text, in linear time."""

from __future__ import annotations

import html
import re

from pipeline.core.errors import SampleError, one_line


def is_html(text: str, name: str) -> bool:
    """True for HTML, by the file's name or the text's beginning."""
    start = text[:200].lstrip().lower()
    return name.endswith((".html", ".htm", ".xhtml")) or start.startswith(("<!doctype html", "<html"))


_BLOCK = re.compile(
    r"</?(?:p|div|br|li|tr|h[1-6]|section|article|header|footer|table|ul|ol|dl|dt|dd|title)(?![\w-])", re.IGNORECASE
)
_SILENT = re.compile(r"<(script|style|template|noscript)(?![\w-])", re.IGNORECASE)
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")
_QUOTE_OR_END = re.compile(r"[\"'>]")


def strip_html(text: str) -> str:
    """The words of an HTML page, one block per line, in time linear in its length.

    A comment, a tag or a script that is not closed extends to the end, as in the HTML standard.
    """
    parts, at = [], 0
    while (found := _MARKUP.search(text, at)) is not None:
        parts.append(unescape(text[at : found.start()]))
        start = found.start()
        if _BLOCK.match(text, start):
            parts.append("\n")
        silent = _SILENT.match(text, start)
        at = _markup_end(text, start)
        if silent is not None:
            end = re.compile(rf"</{silent[1]}(?![\w-])", re.IGNORECASE).search(text, at)
            at = len(text) if end is None else end.start()
    parts.append(unescape(text[at:]))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def unescape(text: str) -> str:
    """``text`` with its character references replaced. Raises ``SampleError`` (``corrupt``)."""
    try:
        return html.unescape(text)
    except ValueError as error:  # Python parses no number of more than 4300 digits
        raise SampleError(
            "corrupt", f"a character reference that is no character ({one_line(str(error), 80)})"
        ) from error


def _markup_end(text: str, start: int) -> int:
    """End of the comment, declaration or tag that begins at ``start``."""
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
        if text[found.start() - 1] in "= \t\n":  # a quoted value may contain a ">"
            close = text.find(found[0], at)
            at = len(text) if close < 0 else close + 1
    return len(text)
