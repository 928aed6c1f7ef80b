"""Names of the samples of a WebDataset, and of their members.

In a tar file, ``<key>.<member>`` is one member of a sample. Keys and members consist of letters, digits, ``-``, ``_``
and ``%``, so that extracting a file cannot write anywhere else, and no dot ends a key too early. Different rows have
different keys.
"""

from __future__ import annotations

import hashlib
import re

MAX_KEY = 120
"""Characters of a key. File systems allow 255 bytes for the key and the member."""
MAX_MEMBER = 100
_DIGEST = 32
"""Hexadecimal digits that replace the rest of a long name."""
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]|\A[-_]")


def row_key(sample_id: bytes, window: int) -> str:
    """Returns the key of a row: its id with unsafe bytes as ``%XX``, and its window, as in ``cats%2Fa%2Ejpg-w0``.

    Args:
        sample_id: in UTF-8.
        window: its number.
    """
    suffix = f"-w{window}"
    return safe_name(sample_id, MAX_KEY - len(suffix)) + suffix


def repeated_key(key: str, times: int) -> str:
    """Returns another key for a row whose key ``times`` rows of the same tar file have already. No row has it: the
    part after the last ``-w`` of a row's key is a number."""
    return f"{key}-x{times}"


def member_name(column: str) -> str:
    """Returns the name of a column in the names of members."""
    return safe_name(column.encode(errors="surrogatepass"), MAX_MEMBER)


def safe_name(text: bytes, limit: int) -> str:
    """Returns ``text`` with unsafe bytes as ``%XX``. A name of more than ``limit`` characters ends with a part of its
    sha256 instead, so that different texts have different names."""
    name = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], text[: limit + 1]).decode("ascii")
    if len(text) <= limit and len(name) <= limit:
        return name or "%"
    # "%-" is in no other name, so that no text can be made whose name is that of a longer one
    return f"{name[: limit - _DIGEST - 2]}%-{hashlib.sha256(text).hexdigest()[:_DIGEST]}"
