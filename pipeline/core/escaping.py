"""Text from outside for a terminal, a log or one line of an error: what is no visible character is shown as an escape.

File names, sample ids, keys of a config, words of other libraries and values of a dataset may hold control characters,
which a terminal obeys, and marks that reverse or hide what follows.
"""

from __future__ import annotations

import re
import unicodedata

_IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Printable by their class in Unicode, and drawn as nothing."""
_SUSPECT = re.compile(f"[{_IGNORABLE}]")


def escaped(text: str) -> str:
    """``text`` with each control character, line break, mark of direction, invisible or unassigned character and half
    of a character as a visible escape: ``\\x1b``, ``\\n``, ``\\u202e``. Spaces of other widths stay."""
    if text.isprintable() and (text.isascii() or not _SUSPECT.search(text)):
        return text
    return "".join(one if _is_shown(one) else _escape(one) for one in text)


def one_line(text: str, limit: int) -> str:
    """``text``, escaped, with white space and line breaks as single spaces, at most ``limit`` characters."""
    flat = escaped(" ".join(str(text)[: 20 * limit].split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _is_shown(one: str) -> bool:
    if one.isprintable():
        return one not in _IGNORABLE
    return unicodedata.category(one) == "Zs"


def _escape(one: str) -> str:
    """As Python writes it; a byte of a file name that is no UTF-8, which Python keeps as half a character, as it is."""
    if "\udc80" <= one <= "\udcff":
        return f"\\x{ord(one) - 0xDC00:02x}"
    return one.encode("unicode_escape").decode("ascii") if not one.isprintable() else f"\\u{ord(one):04x}"
