"""Reads manifests in CSV and TSV."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from pipeline import parquet
from pipeline.core.errors import ConfigError
from pipeline.sources._tables import csv_header
from pipeline.sources._tables.column_types import lengths
from pipeline.sources._tables.csv_quotes import QuoteTracker
from pipeline.sources._tables.table_reader import Limits, too_large
from pipeline.sources._tables.text_table import TextTable, UnparsedRows

_CSV_BLOCK_BYTES = 1 << 24


def read_csv(
    text: io.BufferedReader,
    separator: str,
    path: str,
    strings: set[str],
    wanted: set[str],
    where: str,
    limits: Limits,
) -> TextTable:
    """Reads the rows of a CSV.

    A string may be invalid UTF-8; it raises when it is converted to a Python object.

    Args:
        separator: the character between the values.
        path: of the manifest, for errors.
        strings: columns that are read as strings whatever they look like.
        wanted: columns that will be read.
        where: dotted path of the manifest's path in the config, for errors.

    Raises:
        ConfigError: over a limit; a quote that is never closed.
        ValueError: no header, or one that cannot be read.
        pa.ArrowException: pyarrow cannot read the file.
    """
    head = text.read(csv_header.HEADER_BYTES)
    names = csv_header.read_header(head, separator)
    if len(names) > parquet.MAX_LIST:
        raise ConfigError(where, f"{path!r} has {len(names)} columns", f"at most {parquet.MAX_LIST}")
    columns = sorted(wanted & {*names}) or names[:1]
    unparsed = UnparsedRows("row", path, where)
    stream = _TrackedStream(head, text, separator)
    table = _parse(stream, separator, columns, strings, unparsed)
    _check_quotes(stream.quotes, len(table) + len(unparsed.numbers), path, where)
    for name, column in zip(table.column_names, table.columns, strict=True):
        most = max((pc.max(lengths(chunk)).as_py() or 0 for chunk in column.chunks), default=0)
        if most > limits.cell_bytes:
            raise too_large(where, f"a value of {name!r} in {path!r} has {most} bytes", "max_cell_bytes")
    schema = pa.schema([pa.field(name, pa.string() if name in columns else pa.null()) for name in names])
    others = csv_header.other_separators(head, separator, wanted)
    return TextTable(table, schema, unparsed, _parsed_numbers(len(table), unparsed), others)


def _parse(
    stream: _TrackedStream, separator: str, columns: list[str], strings: set[str], unparsed: UnparsedRows
) -> pa.Table:
    """Parses ``columns`` with pyarrow. Rows with another number of fields than the header go to ``unparsed``."""
    errors: list[ConfigError] = []

    def skip(row: Any) -> str:
        """Handles an invalid row. pyarrow does not allow it to raise."""
        try:
            fields = "1 field" if row.actual_columns == 1 else f"{row.actual_columns} fields"
            unparsed.add(row.number - 1, f"has {fields}, not {row.expected_columns}")
        except ConfigError as error:
            errors.append(error)
            return "error"
        return "skip"

    try:
        with _UnraisableDecodeErrors():
            return csv.read_csv(
                pa.PythonFile(stream, mode="r"),
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
        if errors:
            raise errors[0] from error
        if "straddl" in str(error) and (stream.quotes.is_open or stream.quotes.odd is not None):
            found = f"a field of {unparsed.path!r} opens a quote that nothing closes within {_CSV_BLOCK_BYTES} bytes"
            raise ConfigError(unparsed.where, found, "close it") from error
        raise


def _check_quotes(quotes: QuoteTracker, rows: int, path: str, where: str) -> None:
    """Raises ``ConfigError`` for a quote that is never closed: all rows after it would be one field."""
    if quotes.odd is not None:
        raise ConfigError(
            where,
            f"a field of several lines in {path!r}, which begins with {quotes.odd!r}, goes on behind its closing quote",
            "close it before, or double the quotes in it",
        )
    if quotes.is_open:
        raise ConfigError(where, f"row {rows} of {path!r} opens a quote that nothing closes", "close it")


def _parsed_numbers(rows: int, unparsed: UnparsedRows) -> np.ndarray | None:
    """Returns the numbers of the ``rows`` rows that were parsed; None if all were."""
    if not unparsed.numbers:
        return None
    is_parsed = np.ones(rows + len(unparsed.numbers), bool)
    is_parsed[np.array(unparsed.numbers, np.int64) - 1] = False
    return np.flatnonzero(is_parsed) + 1


class _UnraisableDecodeErrors:
    """Silences decode errors that pyarrow cannot raise.

    pyarrow decodes the text of an invalid row before it calls the handler. If that fails, it writes a traceback to the
    terminal and also raises an error for the whole file; the error is enough.
    """

    def __enter__(self) -> None:
        self.hook = sys.unraisablehook
        sys.unraisablehook = lambda found: None if found.exc_type is UnicodeDecodeError else self.hook(found)

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self.hook


class _TrackedStream(io.RawIOBase):
    """A CSV file whose first bytes were read already. Tracks the quotes in everything that is read from it.

    Args:
        head: the first bytes.
        rest: the file after them.
    """

    def __init__(self, head: bytes, rest: io.BufferedReader, separator: str) -> None:
        self.head, self.rest, self.at, self.quotes = io.BytesIO(head), rest, 0, QuoteTracker(separator)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        data = self.head.read(size) or self.rest.read(size)
        self.at += len(data)
        self.quotes.feed(data)
        return data
