"""JSON-lines manifests."""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import parquet
from pipeline.core.errors import ConfigError, describe, one_line
from pipeline.sources._shared.table_reader import Limits, too_large
from pipeline.sources._shared.text_table import _REASON_CHARACTERS, TextTable, _BadRows

if TYPE_CHECKING:
    from pipeline.sources._shared.text_table import _Made


_LINES_BYTES = 16 << 20
"""So many bytes of JSON lines become columns together."""


def read_jsonl(text: io.BufferedReader, path: str, wanted: set[str], where: str, limits: Limits) -> TextTable:
    """The rows of JSON lines.

    Raises:
        ConfigError: over a limit; a column of several types; no line is an object.
    """
    found, number = _Lines(path, wanted, where), 0
    while line := text.readline(limits.cell_bytes + 1):
        number += 1
        if len(line) > limits.cell_bytes:
            raise too_large(
                where, f"line {number} of {path!r} has more than {limits.cell_bytes} bytes", "max_cell_bytes"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            found.add(number, line)
    return found.table()


class _Lines:
    """JSON lines on their way into columns, some megabytes at a time, so that they are never all Python objects."""

    def __init__(self, path: str, wanted: set[str], where: str) -> None:
        self.path, self.wanted, self.where = path, sorted(wanted), where
        self.names: dict[str, None] = {}
        self.columns: dict[str, list[pa.Array]] = {name: [] for name in self.wanted}
        self.lines: list[np.ndarray] = []
        self.rows: dict[str, list[Any]] = {name: [] for name in self.wanted}
        self.numbers: list[int] = []
        self.bytes = 0
        self.bad = _BadRows("line", path, where)

    def add(self, number: int, line: bytes) -> None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            self.bad.add(number, f"is not JSON ({_cleaned(str(error))})")
            return
        if not isinstance(row, dict):
            self.bad.add(number, f"holds {_kind_of(row)}, not an object")
            return
        self.names.update(dict.fromkeys(row))
        if len(self.names) > parquet.MAX_LIST:
            raise ConfigError(self.where, f"{self.path!r} has too many names", f"at most {parquet.MAX_LIST}")
        for name in self.wanted:
            self.rows[name].append(row.get(name))
        self.numbers.append(number)
        self.bytes += len(line)
        if self.bytes >= _LINES_BYTES:
            self.flush()

    def flush(self) -> None:
        """Makes columns of the rows that wait. Raises ``ConfigError`` for a column of several types."""
        try:
            made = {name: pa.array(found) for name, found in self.rows.items()}
        except _NO_ARRAY:
            self._leave_out()
            made = self._of_one_type(self._array, self.wanted)
        for name, found in self.rows.items():
            self.columns[name].append(made[name])
            found.clear()
        self.lines.append(np.array(self.numbers, np.int64))
        self.numbers.clear()
        self.bytes = 0

    def _of_one_type(self, make: Callable[[str], _Made], names: list[str]) -> dict[str, _Made]:
        """What ``make`` returns for each column. Raises ``ConfigError`` for the first line that does not fit."""
        made: dict[str, _Made] = {}
        errors: list[_MixedTypes] = []
        for name in names:
            try:
                made[name] = make(name)
            except _MixedTypes as error:
                errors.append(error)
        if errors:
            first = min(errors, key=lambda error: error.line)
            found = f"column {first.column!r} of {self.path!r} has no one type: line {first.line} {first.found}"
            raise ConfigError(self.where, found, "one type a column") from first
        return made

    def _leave_out(self) -> None:
        """Leaves out the waiting rows with a value that Arrow has no type for: half of a character, a list of several
        types, a number of over 64 bits."""
        bad: set[int] = set()
        for name, found in self.rows.items():
            for i, value in enumerate(found):
                try:
                    pa.array([value])
                except _NO_ARRAY as error:
                    if i not in bad:
                        why = _cleaned(describe(error))
                        self.bad.add(self.numbers[i], f"has in column {name!r} a value that cannot be read ({why})")
                    bad.add(i)
        for found in (self.numbers, *self.rows.values()):
            found[:] = [value for i, value in enumerate(found) if i not in bad]

    def _array(self, name: str) -> pa.Array:
        found = self.rows[name]
        try:
            return pa.array(found)
        except _NO_ARRAY as error:
            at = _first_misfit(found, lambda some: pa.array(some))
            before = pa.array(found[:at]).type
            why = f"holds {_kind_of(found[at])}, the lines before it {before}"
            raise _MixedTypes(name, self.numbers[at], why) from error

    def table(self) -> TextTable:
        self.flush()
        lines, bad = np.concatenate(self.lines), self.bad.in_order()
        if not len(lines) and bad.numbers:
            (first,) = bad.slice(0, 1)
            raise ConfigError(
                self.where,
                f"no line of {self.path!r} is an object of JSON, of {len(bad.numbers)}; {first.place} {first.reason}",
                "one object a line",
            )
        columns = self._of_one_type(self._joined, [name for name in self.wanted if name in self.names])
        schema = [pa.field(name, columns[name].type if name in columns else pa.null()) for name in self.names]
        return TextTable(pa.table(columns), pa.schema(schema), bad, lines)

    def _joined(self, name: str) -> pa.ChunkedArray:
        """The pieces of a column in the one type that holds them all. Raises ``_MixedTypes`` if there is none."""
        pieces = self.columns[name]
        kind = pieces[0].type
        for number, piece in enumerate(pieces):
            try:
                kind = _unified(kind, piece.type)
            except pa.ArrowException as error:
                values, before = piece.to_pylist(), kind
                at = _first_misfit(values, lambda some: _unified(before, pa.array(some).type))  # noqa: B023  # used here
                why = f"holds {_kind_of(values[at])}, the lines before it {before}"
                raise _MixedTypes(name, int(self.lines[number][at]), why) from error
        cast = []
        for number, piece in enumerate(pieces):
            try:
                cast.append(piece.cast(kind))
            except pa.ArrowException as error:
                at = _first_misfit(piece.to_pylist(), lambda some: pa.array(some, piece.type).cast(kind))  # noqa: B023
                why = f"holds a value that is no {kind}, as others are ({describe(error)})"
                raise _MixedTypes(name, int(self.lines[number][at]), why) from error
        return pa.chunked_array(cast, kind)


class _MixedTypes(Exception):
    """A value that does not fit those of the other lines.

    Args:
        found: the rest of a sentence that begins with the line.
    """

    def __init__(self, column: str, line: int, found: str) -> None:
        super().__init__(column, line, found)
        self.column, self.line, self.found = column, line, found


_NO_ARRAY = (pa.ArrowException, ValueError, TypeError, OverflowError)
"""What `pa.array` raises for values that have no type, or not one."""
_KINDS = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


@lru_cache(maxsize=1024)
def _cleaned(text: str) -> str:
    """Another library's words. Cached: many lines may be bad in one way."""
    return one_line(text, _REASON_CHARACTERS)


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _unified(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both. Raises ``pa.ArrowException``."""
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field("x").type


def _first_misfit(values: list[Any], use: Callable[[list[Any]], object]) -> int:
    """The number of the first value with which ``use`` fails for the values up to it."""

    def fails(count: int) -> bool:
        try:
            use(values[:count])
        except _NO_ARRAY:
            return True
        return False

    return bisect_left(range(1, len(values)), True, key=fails)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
