"""A manifest in a text format as a table. A row that cannot be parsed is left out and reported; the others are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.sources._tables.table_reader import Slice, UnparsedRow

MAX_UNPARSED_ROWS = 1_000_000
"""Maximum number of rows that cannot be parsed. A file with more of them has another format."""
MAX_REASON = 200
"""Characters of a reason."""


class UnparsedRows:
    """Rows that cannot be parsed, stored compactly: numbers of the rows, and indices of their reasons.

    Args:
        unit: ``row`` or ``line``.
        path: of the manifest, for errors.
        where: dotted path of the manifest's path in the config, for errors.
    """

    def __init__(self, unit: str, path: str, where: str) -> None:
        self.unit, self.path, self.where = unit, path, where
        self.numbers, self.reasons = array("q"), array("i")
        self.texts: dict[str, int] = {}

    def add(self, number: int, reason: str) -> None:
        """Adds a row. Raises ``ConfigError`` for more than ``MAX_UNPARSED_ROWS``."""
        if len(self.numbers) == MAX_UNPARSED_ROWS:
            (first,) = self.slice(0, 1)
            raise ConfigError(
                self.where,
                f"more than {MAX_UNPARSED_ROWS} rows of {self.path!r} cannot be read; {first.place} {first.reason}",
                "another format or separator, or mend the manifest",
            )
        self.numbers.append(number)
        self.reasons.append(self.texts.setdefault(reason, len(self.texts)))

    def slice(self, start: int, end: int) -> list[UnparsedRow]:
        """Returns the rows with indices from ``start`` to less than ``end``."""
        texts = list(self.texts)
        pairs = zip(self.numbers[start:end], self.reasons[start:end], strict=True)
        return [UnparsedRow(f"{self.unit} {number}", texts[reason]) for number, reason in pairs]

    def in_order(self) -> UnparsedRows:
        """Returns the rows ordered by number, without duplicates: a row keeps the first of its reasons."""
        made, seen = UnparsedRows(self.unit, self.path, self.where), -1
        made.texts = self.texts
        for i in np.argsort(np.array(self.numbers, np.int64), kind="stable").tolist():
            if self.numbers[i] != seen:
                seen = self.numbers[i]
                made.numbers.append(seen)
                made.reasons.append(self.reasons[i])
        return made


@dataclass(frozen=True)
class TextTable:
    """The rows of a text file, which is held in memory as a whole."""

    table: pa.Table
    schema: pa.Schema
    unparsed: UnparsedRows
    numbers: np.ndarray | None = None
    """The number of each row; None: 1, 2, 3..."""
    separators: tuple[str, ...] = ()
    """If the header lacks wanted columns: the separators with which it would have them all."""

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """Yields the columns in slices of at most ``rows`` rows, then the rows that could not be parsed."""
        table, unit = self.table.select(list(dict.fromkeys(columns))), self.unparsed.unit
        for start in range(0, len(table), rows):
            numbers = range(start + 1, start + rows + 1) if self.numbers is None else self.numbers[start : start + rows]
            yield Slice(table.slice(start, rows), partial(_place, unit, numbers))
        for start in range(0, len(self.unparsed.numbers), rows):
            yield Slice(table.slice(0, 0), str, self.unparsed.slice(start, start + rows))

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """Suggests the separator that the header seems to have."""
        if not self.separators:
            return None
        (first, *_), quoted = self.separators, {"\t": '"\\t"'}
        return (
            f"no column {column!r} in the manifest, whose separator looks like {first!r}",
            f"set source.separator: {quoted.get(first, repr(first))}",
        )


def _place(unit: str, numbers: Sequence[int] | np.ndarray, i: int) -> str:
    return f"{unit} {numbers[i]}"


def normalized(name: str) -> str:
    """Returns ``name`` without white space and in lower case, to find names that differ in these only."""
    return "".join(name.split()).casefold()
