"""Reads manifests of CSV, TSV and JSON lines. A row that cannot be parsed costs that row."""

from __future__ import annotations

import csv as standard_csv
import io
import json
import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from pipeline import parquet
from pipeline.core.errors import ConfigError, describe, one_line
from pipeline.sources._table_reader import BadRow, Limits, Slice, lengths, too_large

SEPARATORS = (",", ";", "\t", "|")
"""What a table may be separated by, if the header shows it."""
MAX_BAD_ROWS = 1_000_000
"""Of a text, which is held whole. A text with more is none of its format."""
_CSV_BLOCK_BYTES = 1 << 24
_HEADER_BYTES = 1 << 20
"""Of the first line of a CSV."""
_LINES_BYTES = 16 << 20
"""So many bytes of JSON lines become columns together."""
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


def read_csv(
    text: io.BufferedReader,
    separator: str,
    path: str,
    strings: set[str],
    wanted: set[str],
    where: str,
    limits: Limits,
) -> TextTable:
    """The rows of a CSV. Strings may be no UTF-8: such a value raises when it becomes a Python object.

    Args:
        strings: columns that are strings whatever they look like.
        wanted: columns that will be read.

    Raises:
        ConfigError: over a limit; a quote that nothing closes.
        ValueError: no header, or one that cannot be read.
        pa.ArrowException: as pyarrow does.
    """
    head = text.read(_HEADER_BYTES)
    names = _header(head, separator)
    if len(names) > parquet.MAX_LIST:
        raise ConfigError(where, f"{path!r} has {len(names)} columns", f"at most {parquet.MAX_LIST}")
    columns = sorted(wanted & {*names}) or names[:1]
    bad = _BadRows("row", path, where)
    refused: list[ConfigError] = []

    def skip(row: Any) -> str:
        """pyarrow's handler, which may not raise."""
        try:
            bad.add(row.number - 1, f"has {_count(row.actual_columns, 'field')}, not {row.expected_columns}")
        except ConfigError as error:
            refused.append(error)
            return "error"
        return "skip"

    try:
        joined = _Joined(head, text, separator)
        with _QuietHandler():
            table = csv.read_csv(
                pa.PythonFile(joined, mode="r"),
                read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=skip),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys({*strings, *columns}, pa.string()),
                    check_utf8=False,
                    null_values=[""],
                    strings_can_be_null=True,
                    include_columns=columns,
                ),
            )
    except pa.ArrowException as error:
        if refused:
            raise refused[0] from error
        raise
    for name, column in zip(table.column_names, table.columns, strict=True):
        most = max((pc.max(lengths(chunk)).as_py() or 0 for chunk in column.chunks), default=0)
        if most > limits.cell_bytes:
            raise too_large(where, f"a value of {name!r} in {path!r} has {most} bytes", "max_cell_bytes")
    if (odd := joined.quotes.odd) is not None:
        raise ConfigError(
            where,
            f"a field of several lines in {path!r}, which begins with {odd!r}, goes on behind its closing quote",
            "close it before, or double the quotes in it",
        )
    if joined.quotes.open:  # all rows from there up to the end are in one field
        number = len(table) + len(bad.numbers)
        raise ConfigError(where, f"row {number} of {path!r} opens a quote that nothing closes", "close it")
    schema = pa.schema([pa.field(name, pa.string() if name in columns else pa.null()) for name in names])
    return TextTable(table, schema, bad, _good_numbers(len(table), bad), _other_separators(head, separator, wanted))


def _good_numbers(rows: int, bad: _BadRows) -> np.ndarray | None:
    """The numbers of ``rows`` rows among which are others that are not there."""
    if not bad.numbers:
        return None
    is_good = np.ones(rows + len(bad.numbers), bool)
    is_good[np.array(bad.numbers, np.int64) - 1] = False
    return np.flatnonzero(is_good) + 1


class _QuietHandler:
    """pyarrow decodes the text of a row before it calls the handler. If that fails it writes a traceback to the
    terminal and refuses the whole file with an error of its own; the error is enough."""

    def __enter__(self) -> None:
        self.hook = sys.unraisablehook
        sys.unraisablehook = lambda found: None if found.exc_type is UnicodeDecodeError else self.hook(found)

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self.hook


def _other_separators(head: bytes, separator: str, wanted: set[str]) -> tuple[str, ...]:
    """The separators by which the header in ``head`` would have all of ``wanted``, if it has not: by another, the names
    may still differ in blanks and case."""
    names = _header(head, separator)
    if wanted <= {*names}:
        return ()
    asked, found = {similar(name) for name in wanted}, []
    for other in SEPARATORS:
        try:
            split = _header(head, other)
        except ValueError:
            continue
        if len(split) > len(names) and asked <= {similar(name) for name in split}:
            found.append(other)
    return tuple(found)


def similar(name: str) -> str:
    """``name`` without what is easily overlooked: blanks and case."""
    return "".join(name.split()).casefold()


def _header(head: bytes, separator: str) -> list[str]:
    """The names in the first row. Raises ``ValueError`` where there is none."""
    text = io.StringIO(head.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    reader = standard_csv.reader(text, delimiter=separator)
    try:
        names = next((row for row in reader if row), [])
    except standard_csv.Error as error:
        raise ValueError(f"its first line cannot be read: {error}") from error
    if len(head) == _HEADER_BYTES and not text.read(1):
        raise ValueError(f"its first line has more than {_HEADER_BYTES} bytes")
    return [name.encode("latin-1").decode() for name in names]


class _Joined(io.RawIOBase):
    """What was read already, and the rest."""

    def __init__(self, head: bytes, rest: io.BufferedReader, separator: str) -> None:
        self.head, self.rest, self.at, self.quotes = io.BytesIO(head), rest, 0, _Quotes(separator)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        data = self.head.read(size) or self.rest.read(size)
        self.at += len(data)
        self.quotes.feed(data)
        return data


class _Quotes:
    """Finds out whether a CSV, fed piece by piece, ends inside a quoted field: as pyarrow parses it, in which a quote
    begins such a field at the start of a field only, and two of them inside are one character."""

    def __init__(self, separator: str) -> None:
        ends = rb"\r\n" + re.escape(separator.encode())
        rest = rb'(?:[^"]++|"")*+("?+)([^' + ends + rb"]?+)"
        self.fields = re.compile(rb'"(?<=[' + ends + rb']")' + rest)  # the quote first, which is faster to look for
        self.rest = re.compile(rest)
        self.inside, self.beginning, self.lines = False, b"", False
        """Whether a field is open, its first bytes, and whether there is a line break in it."""
        self.odd: str | None = None
        """The beginning of a field of several lines which ends with characters behind its closing quote: in truth that
        quote opens another field, and the one before opens one that nothing closes."""
        self.kept = b""
        """The end of what was fed: a byte, and quotes that are not looked at before it is known what follows them."""

    @property
    def open(self) -> bool:
        return self._state(self.kept)

    def feed(self, piece: bytes) -> None:
        if not self.kept:
            self.kept, piece = b"\n", piece.removeprefix(b"\xef\xbb\xbf")
        if b'"' not in piece and b'"' not in self.kept and not self.inside:
            self.kept = piece[-1:] or self.kept
            return
        data = self.kept + piece
        body = data.rstrip(b'"')
        self.inside = self._state(body)
        quotes = len(data) - len(body)
        self.kept = body[-1:] + b'"' * (quotes if quotes < 3 else 2 - quotes % 2)

    def _state(self, data: bytes) -> bool:
        """Whether a field is open at the end of ``data``, whose first byte was looked at before."""
        at, is_open = 1, False
        if self.inside:
            found = self.rest.match(data, at)
            assert found is not None, "it matches no bytes too"
            is_open = self._look(found, self.beginning, self.lines)
            at = found.end()
        for found in self.fields.finditer(data, at):
            is_open = not found[1]
            if is_open or found[2]:
                self._look(found, b"", False)
        return is_open

    def _look(self, found: re.Match[bytes], beginning: bytes, lines: bool) -> bool:
        """Whether a field stays open; notes what is odd about one that does not."""
        beginning, lines = (beginning + found[0])[:_REASON_CHARACTERS], lines or b"\n" in found[0]
        if found[1] and found[2] and lines and self.odd is None:
            self.odd = one_line(beginning.decode("utf-8", "replace"), 40)
        self.beginning, self.lines = beginning, lines
        return not found[1]


# -- JSON lines -----------------------------------------------------------------------------------


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
