"""Reads manifests in JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipeline import parquet
from pipeline.core.errors import ConfigError, describe, one_line
from pipeline.sources._tables.jsonl_types import NO_ARRAY, MixedTypes, concatenated, kind_of, to_array
from pipeline.sources._tables.table_reader import Limits, too_large
from pipeline.sources._tables.text_table import MAX_REASON, TextTable, UnparsedRows

_LINES_BYTES = 16 << 20
"""Bytes of JSON lines that are converted to Arrow arrays together."""
_Converted = TypeVar("_Converted")


def read_jsonl(text: io.BufferedReader, path: str, wanted: set[str], where: str, limits: Limits) -> TextTable:
    """Reads the rows of JSON lines. Empty lines are skipped.

    Args:
        path: of the manifest, for errors.
        wanted: columns that will be read.
        where: dotted path of the manifest's path in the config, for errors.

    Raises:
        ConfigError: over a limit; a column with several types; no line is an object.
    """
    builder, number = _TableBuilder(path, wanted, where), 0
    while line := text.readline(limits.cell_bytes + 1):
        number += 1
        if len(line) > limits.cell_bytes:
            raise too_large(
                where, f"line {number} of {path!r} has more than {limits.cell_bytes} bytes", "max_cell_bytes"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            builder.add(number, line)
    return builder.table()


class _TableBuilder:
    """Converts JSON lines to a table, some megabytes at a time, so that they are never all Python objects."""

    def __init__(self, path: str, wanted: set[str], where: str) -> None:
        self.path, self.wanted, self.where = path, sorted(wanted), where
        self.names: dict[str, None] = {}
        """Names of all columns in order of appearance."""
        self.columns: dict[str, list[pa.Array]] = {name: [] for name in self.wanted}
        """The converted pieces of each column."""
        self.lines: list[np.ndarray] = []
        """For each piece, the line of each row."""
        self.rows: dict[str, list[Any]] = {name: [] for name in self.wanted}
        """Values of each column that are not converted yet."""
        self.numbers: list[int] = []
        """The line of each of them."""
        self.bytes = 0
        """Size of their lines."""
        self.unparsed = UnparsedRows("line", path, where)

    def add(self, number: int, line: bytes) -> None:
        """Adds a line. Raises ``ConfigError`` for too many columns, and as `flush` does."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            self.unparsed.add(number, f"is not JSON ({_short(str(error))})")
            return
        if not isinstance(row, dict):
            self.unparsed.add(number, f"holds {kind_of(row)}, not an object")
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
        """Converts the rows so far to arrays. Raises ``ConfigError`` for a column with several types."""
        try:
            made = {name: pa.array(found) for name, found in self.rows.items()}
        except NO_ARRAY:
            self._remove_unconvertible()
            made = self._convert(lambda name: to_array(name, self.rows[name], self.numbers), self.wanted)
        for name, found in self.rows.items():
            self.columns[name].append(made[name])
            found.clear()
        self.lines.append(np.array(self.numbers, np.int64))
        self.numbers.clear()
        self.bytes = 0

    def table(self) -> TextTable:
        """Returns the table of all lines. Raises ``ConfigError`` for a column with several types, or if no line is an
        object."""
        self.flush()
        lines, unparsed = np.concatenate(self.lines), self.unparsed.in_order()
        if not len(lines) and unparsed.numbers:
            (first,) = unparsed.slice(0, 1)
            count = len(unparsed.numbers)
            raise ConfigError(
                self.where,
                f"no line of {self.path!r} is an object of JSON, of {count}; {first.place} {first.reason}",
                "one object a line",
            )
        columns = self._convert(
            lambda name: concatenated(name, self.columns[name], self.lines),
            [name for name in self.wanted if name in self.names],
        )
        schema = [pa.field(name, columns[name].type if name in columns else pa.null()) for name in self.names]
        return TextTable(pa.table(columns), pa.schema(schema), unparsed, lines)

    def _convert(self, convert: Callable[[str], _Converted], names: list[str]) -> dict[str, _Converted]:
        """Returns what ``convert`` returns for each column. Raises ``ConfigError`` for the first line that does not
        fit."""
        made: dict[str, _Converted] = {}
        errors: list[MixedTypes] = []
        for name in names:
            try:
                made[name] = convert(name)
            except MixedTypes as error:
                errors.append(error)
        if errors:
            first = min(errors, key=lambda error: error.line)
            found = f"column {first.column!r} of {self.path!r} has no one type: line {first.line} {first.found}"
            raise ConfigError(self.where, found, "one type a column") from first
        return made

    def _remove_unconvertible(self) -> None:
        """Moves rows to ``unparsed`` that have a value without an Arrow type: a lone surrogate, a list of several
        types, a number of over 64 bits."""
        removed: set[int] = set()
        for name, found in self.rows.items():
            for i, value in enumerate(found):
                try:
                    pa.array([value])
                except NO_ARRAY as error:
                    if i not in removed:
                        why = _short(describe(error))
                        reason = f"has in column {name!r} a value that cannot be read ({why})"
                        self.unparsed.add(self.numbers[i], reason)
                    removed.add(i)
        for found in (self.numbers, *self.rows.values()):
            found[:] = [value for i, value in enumerate(found) if i not in removed]


@lru_cache(maxsize=1024)
def _short(text: str) -> str:
    """Returns a message of another library on one short line. Cached, since many lines may have the same mistake."""
    return one_line(text, MAX_REASON)
