"""Reads manifests of CSV, TSV and JSON lines. A row that cannot be parsed costs that row."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.sources._shared.table_reader import BadRow, Slice

SEPARATORS = (",", ";", "\t", "|")
"""What a table may be separated by, if the header shows it."""
MAX_BAD_ROWS = 1_000_000
"""Of a text, which is held whole. A text with more is none of its format."""
_REASON_CHARACTERS = 200
_Made = TypeVar("_Made")


class _BadRows:
    """Rows that cannot be parsed, in some bytes each: their numbers, and numbers of their reasons.

    Args:
        unit: ``row`` or ``line``.
    """

    def __init__(self, unit: str, path: str, where: str) -> None:
        self.unit, self.path, self.where = unit, path, where
        self.numbers, self.reasons = array("q"), array("i")
        self.texts: dict[str, int] = {}

    def add(self, number: int, reason: str) -> None:
        """Raises ``ConfigError`` for more than ``MAX_BAD_ROWS``."""
        if len(self.numbers) == MAX_BAD_ROWS:
            (first,) = self.slice(0, 1)
            raise ConfigError(
                self.where,
                f"more than {MAX_BAD_ROWS} rows of {self.path!r} cannot be read; {first.place} {first.reason}",
                "another format or separator, or mend the manifest",
            )
        self.numbers.append(number)
        self.reasons.append(self.texts.setdefault(reason, len(self.texts)))

    def slice(self, start: int, end: int) -> list[BadRow]:
        texts = list(self.texts)
        pairs = zip(self.numbers[start:end], self.reasons[start:end], strict=True)
        return [BadRow(f"{self.unit} {number}", texts[reason]) for number, reason in pairs]

    def in_order(self) -> _BadRows:
        """The same by number; a row once, with the first of its reasons."""
        made, seen = _BadRows(self.unit, self.path, self.where), -1
        made.texts = self.texts
        for i in np.argsort(np.array(self.numbers, np.int64), kind="stable").tolist():
            if self.numbers[i] != seen:
                seen = self.numbers[i]
                made.numbers.append(seen)
                made.reasons.append(self.reasons[i])
        return made


@dataclass(frozen=True)
class TextTable:
    """The rows of a text, which is read whole."""

    table: pa.Table
    schema: pa.Schema
    bad: _BadRows
    numbers: np.ndarray | None = None
    """The number of each row, where they are not 1, 2, 3..."""
    separators: tuple[str, ...] = ()
    """Those by which the header would have all the wanted columns, if it has not."""

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        table, unit = self.table.select(list(dict.fromkeys(columns))), self.bad.unit
        for start in range(0, len(table), rows):
            numbers = range(start + 1, start + rows + 1) if self.numbers is None else self.numbers[start : start + rows]
            yield Slice(table.slice(start, rows), partial(_place, unit, numbers))
        for start in range(0, len(self.bad.numbers), rows):
            yield Slice(table.slice(0, 0), str, self.bad.slice(start, start + rows))

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """The separator that the header looks as if it had."""
        if not self.separators:
            return None
        (first, *_), quoted = self.separators, {"\t": '"\\t"'}
        return (
            f"no column {column!r} in the manifest, whose separator looks like {first!r}",
            f"set source.separator: {quoted.get(first, repr(first))}",
        )


def _place(unit: str, numbers: Sequence[int] | np.ndarray, i: int) -> str:
    return f"{unit} {numbers[i]}"


# -- CSV ------------------------------------------------------------------------------------------


def similar(name: str) -> str:
    """``name`` without what is easily overlooked: blanks and case."""
    return "".join(name.split()).casefold()


# -- JSON lines -----------------------------------------------------------------------------------
