"""Interface of the readers of manifests: slices of a table with the places of their rows, and limits.

A manifest may be untrusted, and a small file may expand to much data. It is therefore read in slices, and within
`Limits` on one value and on all values together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from pipeline.core.errors import ConfigError, describe

TOTAL_BYTES = 1 << 30
"""Maximum size of all values together, unless the config sets one."""
_UNREADABLE = (pa.ArrowException, ValueError, OverflowError, TypeError)
"""Errors of pyarrow for a value that no Python object can hold: a string that is not UTF-8, the year 40000."""


@dataclass(frozen=True)
class Limits:
    """Maximum sizes of the values of a manifest."""

    cell_bytes: int
    """Maximum bytes of one value, and of one line of JSON."""
    bytes: int | None
    """Maximum bytes of all values that are read; for text, of the decompressed file. None: 1 GiB, for Parquet at least
    a hundred times the size of the file."""


class UnparsedRow(NamedTuple):
    """A row that could not be parsed, and is therefore in no table."""

    place: str
    reason: str
    """What is wrong, as the rest of a sentence that begins with the place. Without secrets."""


class Slice(NamedTuple):
    """Consecutive rows of a manifest."""

    table: pa.Table
    place: Callable[[int], str]
    """Returns the place of a row of ``table`` by its index from 0: ``row 7``, ``line 7``, ``row 7 of
    part-00001.parquet``. Places are counted from 1."""
    unparsed: Sequence[UnparsedRow] = ()
    """Rows that are not in ``table``."""


class TableReader(Protocol):
    """The table of a manifest, of any format."""

    @property
    def schema(self) -> pa.Schema:
        """All columns. The types of columns that are not wanted are undefined. Views have their `stored_type`."""
        ...

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """Yields the columns in slices of at most ``rows`` rows. Raises ``ConfigError`` for a broken file."""
        ...

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """Returns (what was found, what to do) for a column that is not in ``schema``; None if the cause is unknown."""
        ...


def too_large(where: str, found: str, key: str) -> ConfigError:
    """Returns the error for data over a limit.

    Args:
        where: dotted path of the manifest's path in the config.
        found: what is over the limit.
        key: the key, next to the path, that sets the limit.
    """
    return ConfigError(where, found, f"give {where.rpartition('.')[0]}.{key} if the manifest is to be trusted")


def values(table: pa.Table, name: str, where: str) -> tuple[list[Any], dict[int, str]]:
    """Reads a column as Python objects.

    Returns:
        The values, None for those that cannot be read; row index -> the reason why its value cannot be read.

    Raises:
        ConfigError: a library that the values need is missing.
    """
    column = table[name]
    try:
        return column.to_pylist(), {}
    except ImportError as error:  # time zone data that this machine lacks
        raise ConfigError(where, f"column {name!r} cannot be read ({describe(error)})", "install it") from error
    except _UNREADABLE:
        found: list[Any] = []
        unreadable: dict[int, str] = {}
        for i, value in enumerate(column):
            try:
                found.append(value.as_py())
            except _UNREADABLE as error:
                found.append(None)
                unreadable[i] = f"has in column {name!r} a value that cannot be read ({describe(error)})"
        return found, unreadable
