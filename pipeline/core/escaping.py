"""Escapes invisible characters in untrusted text before it is written to a terminal, a log or an error.

File names, sample ids, keys of a config, messages of other libraries and values of a dataset may contain control
characters, which a terminal executes, and marks that reverse or hide the text after them.
"""

from __future__ import annotations

import re
import unicodedata

_IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that Unicode classifies as printable, and that are drawn as nothing."""
_INVISIBLE = re.compile(f"[{_IGNORABLE}]")


def escaped(text: str) -> str:
    """Returns ``text`` with visible escapes (``\\x1b``, ``\\n``, ``\\u202e``) for control characters, line breaks,
    direction marks, invisible and unassigned characters and lone surrogates. Spaces of any width are unchanged."""
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(one if _is_shown(one) else _escape(one) for one in text)


def one_line(text: str, limit: int) -> str:
    """Returns ``text`` escaped, with single spaces for white space and line breaks, at most ``limit`` characters."""
    flat = escaped(" ".join(str(text)[: 20 * limit].split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _is_shown(one: str) -> bool:
    if one.isprintable():
        return one not in _IGNORABLE
    return unicodedata.category(one) == "Zs"


def _escape(one: str) -> str:
    """Returns the escape of a character as in Python source. A byte of a file name that is not UTF-8, which Python
    stores as a lone surrogate, is written as a byte."""
    if "\udc80" <= one <= "\udcff":
        return f"\\x{ord(one) - 0xDC00:02x}"
    return one.encode("unicode_escape").decode("ascii") if not one.isprintable() else f"\\u{ord(one):04x}"
