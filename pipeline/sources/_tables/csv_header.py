"""Reads the first row of a CSV, and suggests another separator if wanted columns are missing from it."""

from __future__ import annotations

import csv
import io

from pipeline.sources._tables.text_table import normalized

HEADER_BYTES = 1 << 20
"""Maximum size of the first line of a CSV."""
_SEPARATORS = (",", ";", "\t", "|")
"""Separators that are tried."""


def other_separators(head: bytes, separator: str, wanted: set[str]) -> tuple[str, ...]:
    """Returns the separators with which the header in ``head`` would have all ``wanted`` columns; empty if it has them.

    White space and case of the names are ignored.
    """
    names = read_header(head, separator)
    if wanted <= {*names}:
        return ()
    asked, found = {normalized(name) for name in wanted}, []
    for other in _SEPARATORS:
        try:
            split = read_header(head, other)
        except ValueError:
            continue
        if len(split) > len(names) and asked <= {normalized(name) for name in split}:
            found.append(other)
    return tuple(found)


def read_header(head: bytes, separator: str) -> list[str]:
    """Returns the names in the first row.

    Args:
        head: the first bytes of the file, at most `HEADER_BYTES`.

    Raises:
        ValueError: the first row cannot be read, or is longer than ``head``.
    """
    text = io.StringIO(head.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    reader = csv.reader(text, delimiter=separator)
    try:
        names = next((row for row in reader if row), [])
    except csv.Error as error:
        raise ValueError(f"its first line cannot be read: {error}") from error
    if len(head) == HEADER_BYTES and not text.read(1):
        raise ValueError(f"its first line has more than {HEADER_BYTES} bytes")
    return [name.encode("latin-1").decode() for name in names]
