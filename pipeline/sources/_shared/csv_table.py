"""CSV and TSV manifests."""

from __future__ import annotations

import csv as standard_csv
import io
import re
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from pipeline import parquet
from pipeline.core.errors import ConfigError, one_line
from pipeline.sources._shared.jsonl_table import _count
from pipeline.sources._shared.table_reader import Limits, lengths, too_large
from pipeline.sources._shared.text_table import _REASON_CHARACTERS, SEPARATORS, TextTable, _BadRows, similar

_CSV_BLOCK_BYTES = 1 << 24
_HEADER_BYTES = 1 << 20
"""Of the first line of a CSV."""


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
