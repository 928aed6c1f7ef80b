"""Reading a manifest's table, whatever its format, with the place of every row for error messages.

A manifest may come from somebody else, and a small file may hold much. So it is read in batches, and within `Limits`:
of one value, and of all together.
"""

from __future__ import annotations

import csv as standard_csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from fsspec.compression import compr
from fsspec.utils import infer_compression

from pipeline import parquet, storage
from pipeline.errors import ConfigError, SampleError, describe, one_line
from pipeline.sources._checked import CheckedFile

_EXTENSIONS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_CSV_BLOCK_BYTES = 1 << 24
_HEADER_BYTES = 1 << 20
"""Of the first line of a CSV."""
_BATCH_BYTES = 64 << 20
"""What a batch of a Parquet file may take, unless one row takes more."""
_LINES_BYTES = 16 << 20
"""So many bytes of JSON lines become columns together."""
MAX_PAGE_BYTES = 256 << 20
"""Of a page of Parquet, decompressed, where no longer value is allowed."""
_LIST_BYTES = 64
"""Of a list in Python. A value may have one around it at each level."""
_RATIO = 64
"""Nested values may take so many times their bytes in the file, at least."""
_TOTAL_BYTES, _TOTAL_RATIO = 1 << 30, 100
"""Of all values together, unless the config says: so many bytes, and of Parquet at least so many times its file's."""

Slices = Iterator[tuple[list[str], pa.Table]]
"""Tables of consecutive rows, each with the places of its rows: ``row 7`` or ``line 7``, counted from 1."""


@dataclass(frozen=True)
class Limits:
    """Of what a manifest may make of its bytes."""

    cell_bytes: int
    """Of one value, and of one line of JSON."""
    bytes: int | None
    """Of all values that are read; of text, of the whole file once it is decompressed. None: 1 GiB, of Parquet at least
    a hundred times the file's own bytes."""


class Manifest(Protocol):
    @property
    def schema(self) -> pa.Schema:
        """All columns; of those that are not wanted only the name counts."""
        ...

    def read(self, columns: list[str], rows: int) -> Slices:
        """The columns, at most ``rows`` rows a table. Raises ``ConfigError`` for a file that turns out broken."""
        ...


def open_manifest(
    path: str, form: str | None, strings: set[str], wanted: set[str], where: str, limits: Limits
) -> Manifest:
    """The table at ``path``.

    Args:
        form: ``parquet``, ``csv``, ``tsv``, ``jsonl``, or None: by the extension (of text, also of ``.csv.gz``).
        strings: columns of a CSV that are strings whatever they look like.
        wanted: columns that will be read.
        where: the manifest's place in the config, for errors.
        limits: what goes beyond them is refused.

    Raises:
        ConfigError: unknown extension; cannot be read or parsed, with the line where there is one.
    """
    form = form or _format_of(path, where)
    try:
        blob = storage.Blob(path)
        if form == "parquet":
            file = CheckedFile(blob.open())
            return _Parquet(file, parquet.open_parquet(file), path, where, limits)
        with blob.open() as stored, _text(stored, path, where, limits) as text:
            if form == "jsonl":
                return _jsonl(text, path, wanted, where, limits)
            return _csv(text, "\t" if form == "tsv" else ",", path, strings, wanted, where, limits)
    except ConfigError:
        raise
    except Exception as error:  # Arrow, the decompressors and any backend may raise anything here
        raise ConfigError(where, f"cannot read {path!r} as {form} ({describe(error)})", "mend or replace it") from error


def _text(stored: Any, path: str, where: str, limits: Limits) -> io.BufferedReader:
    """The text of a file, decompressed as its extension says (``.gz``, ``.bz2``, ``.xz``, ``.zst``)."""
    compression = infer_compression(path)
    file = stored if compression is None else compr[compression](stored, mode="rb")
    return io.BufferedReader(_Bounded(file, limits.bytes or _TOTAL_BYTES, path, where), 1 << 20)


class _Bounded(io.RawIOBase):
    """A file that raises ``ConfigError`` once more than ``limit`` bytes came out of it."""

    def __init__(self, file: Any, limit: int, path: str, where: str) -> None:
        self.file, self.limit, self.path, self.where, self.count = file, limit, path, where, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        if self.count > self.limit:
            raise too_large(self.where, f"{self.path!r} holds more than {self.limit} bytes of text", "max_bytes")
        return len(data)


def too_large(where: str, found: str, key: str) -> ConfigError:
    """What goes beyond a limit, and the key of the config that sets it. ``where``: of the manifest's path."""
    return ConfigError(where, found, f"give {where.rpartition('.')[0]}.{key} if the manifest is to be trusted")


def values(table: pa.Table, name: str, where: str) -> list[Any]:
    """The values of a column. Raises ``ConfigError`` for one that Python cannot hold."""
    try:
        found: list[Any] = table[name].to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, TypeError, ImportError) as error:
        raise ConfigError(
            where, f"column {name!r} holds a value that cannot be read ({describe(error)})", "mend the manifest"
        ) from error
    return found


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's are those that it points to."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_storable(kind: pa.DataType, name: str, where: str) -> None:
    """Raises ``ConfigError`` for a type that Parquet or Arrow's own kernels cannot carry from a manifest to a shard, or
    whose every null takes more than a page may."""
    if _width(kind) > MAX_PAGE_BYTES:
        raise ConfigError(
            where, f"column {name!r} holds {kind}: each null takes {_width(kind)} bytes", f"at most {MAX_PAGE_BYTES}"
        )
    try:
        empty = pa.table({name: pa.nulls(1, kind)}).take([0])
        pq.write_table(empty, pa.BufferOutputStream())
    except (pa.ArrowException, NotImplementedError) as error:
        raise ConfigError(
            where, f"column {name!r} holds {kind} ({describe(error)})", "a type that Parquet stores"
        ) from error


def _format_of(path: str, where: str) -> str:
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    for ending, form in _EXTENSIONS.items():
        if name.endswith(ending):
            return form
    known = ", ".join(_EXTENSIONS)
    raise ConfigError(where, f"the extension of {path!r} names no format", f"one of {known}, or give source.format")


@dataclass(frozen=True)
class _Parquet:
    checked: CheckedFile
    file: pq.ParquetFile
    path: str
    where: str
    limits: Limits

    @property
    def schema(self) -> pa.Schema:
        return self.file.schema_arrow

    def read(self, columns: list[str], rows: int) -> Slices:
        names, done, read = list(dict.fromkeys(columns)), 0, 0
        total = self.limits.bytes or max(_TOTAL_BYTES, _TOTAL_RATIO * self.checked.size)
        try:
            for batch in self._batches(rows, names):
                table = pa.Table.from_batches([batch]).select(names)
                read += self._check(table, done)
                if read > total:
                    found = f"the values of {self.path!r} have more than {total} bytes, {self.checked.size} in the file"
                    raise too_large(self.where, found, "max_bytes")
                yield [f"row {done + i + 1}" for i in range(len(batch))], table
                done += len(batch)
        except (pa.ArrowException, OSError, ValueError, SampleError) as error:
            raise ConfigError(
                self.where, f"{self.path!r} breaks off after row {done} ({describe(error)})", "mend or replace it"
            ) from error

    def _batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Row group by row group: a batch over several breaks beside a dictionary column (pyarrow 26)."""
        columns = [
            number
            for number in range(len(self.file.schema))
            if any(f"{self.file.schema.column(number).path}.".startswith(f"{name}.") for name in names)
        ]
        width = sum(_width(self.schema.field(name).type) for name in names)
        for group in range(self.file.num_row_groups):
            most = max(1, min(rows, _BATCH_BYTES // max(1, width + self._look(group, columns))))
            yield from self.file.iter_batches(most, row_groups=[group], columns=names, use_threads=False)

    def _look(self, group: int, columns: list[int]) -> int:
        """Bytes that a row may take of what rows share: a value of a dictionary, or a prefix."""
        shared, page_bytes = 0, self._page_bytes
        for number in columns:
            found = self.checked.look(self.file.metadata, group, number)
            column, place = self.file.schema.column(number), f"in row group {group + 1} of {self.path!r}"
            if found.page_bytes > page_bytes:
                raise self._too_large(f"a page of {found.path!r} {place} takes {found.page_bytes} bytes")
            if max(found.value_bytes, column.length or 0) > page_bytes:
                raise self._too_large(
                    f"a value of {found.path!r} {place} takes {max(found.value_bytes, column.length or 0)} bytes"
                )
            one = max(found.value_bytes, column.length or 0, 8)
            most, lists = max(page_bytes, _RATIO * found.size), _LIST_BYTES * column.max_repetition_level * found.values
            takes = lists + found.values * one
            if column.max_repetition_level and lists < most < takes and column.physical_type == "BYTE_ARRAY":
                takes = lists + self.checked.string_bytes(self.file.metadata, group, number, most)
            if column.max_repetition_level and takes > most:
                raise self._too_large(f"{found.path!r} {place} may take {takes} bytes")
            shared += one
        return shared

    def _check(self, table: pa.Table, done: int) -> int:
        """Bytes of the values. Raises ``ConfigError`` for one that is too long."""
        total = 0
        for name, column in zip(table.column_names, table.columns, strict=True):
            for chunk in column.chunks:
                lengths = _lengths(chunk)
                most = pc.max(lengths).as_py() or 0 if lengths is not None else 0
                if most > self.limits.cell_bytes:
                    place = f"from row {done + 1} on in {self.path!r}"
                    raise self._too_large(f"a value of {name!r} {place} has {most} bytes")
                total += chunk.nbytes if lengths is None else pc.sum(lengths).as_py() or 0
        return total

    @property
    def _page_bytes(self) -> int:
        """What a page may take: many values, or one that is as long as a value may be."""
        return max(MAX_PAGE_BYTES, 4 * self.limits.cell_bytes)

    def _too_large(self, found: str) -> ConfigError:
        return too_large(self.where, f"{found}, more than its limit", "max_cell_bytes")


def _lengths(array: pa.Array) -> pa.Array | None:
    """Bytes of each value of strings or binary values, of those that a dictionary names too; None for other types."""
    if pa.types.is_dictionary(array.type):
        lengths = _lengths(array.dictionary)
        return None if lengths is None else lengths.take(array.indices)
    variable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return pc.binary_length(array) if any(check(array.type) for check in variable) else None


def _width(kind: pa.DataType) -> int:
    """Bytes that a null of a type takes: lists and binary values of a fixed size have room for what they hold."""
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    return sum(_width(kind.field(i).type) for i in range(kind.num_fields)) or 8


@dataclass(frozen=True)
class _Whole:
    table: pa.Table
    schema: pa.Schema
    lines: np.ndarray | None = None
    """The line of each row, where rows are not counted."""

    def read(self, columns: list[str], rows: int) -> Slices:
        table = self.table.select(list(dict.fromkeys(columns)))
        for start in range(0, len(table), rows):
            end = min(start + rows, len(table))
            if self.lines is None:
                places = [f"row {i + 1}" for i in range(start, end)]
            else:
                places = [f"line {number}" for number in self.lines[start:end].tolist()]
            yield places, table.slice(start, rows)


def _csv(
    text: io.BufferedReader,
    delimiter: str,
    path: str,
    strings: set[str],
    wanted: set[str],
    where: str,
    limits: Limits,
) -> _Whole:
    head = text.read(_HEADER_BYTES)
    names = _header(head, delimiter)
    if len(names) > parquet.MAX_LIST:
        raise ConfigError(where, f"{path!r} has {len(names)} columns", f"at most {parquet.MAX_LIST}")
    table = csv.read_csv(
        pa.PythonFile(_Joined(head, text), mode="r"),
        read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(strings, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            include_columns=sorted(wanted & {*names}) or names[:1],
        ),
    )
    kinds = {field.name: field.type for field in table.schema}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_binary(column.type):
            raise ValueError(f"column {name!r} is not UTF-8")
        lengths = [_lengths(chunk) for chunk in column.chunks]
        most = max((pc.max(one).as_py() or 0 for one in lengths if one is not None), default=0)
        if most > limits.cell_bytes:
            raise too_large(where, f"a value of {name!r} in {path!r} has {most} bytes", "max_cell_bytes")
    return _Whole(table, pa.schema([pa.field(name, kinds.get(name, pa.null())) for name in names]))


def _header(head: bytes, delimiter: str) -> list[str]:
    """The names in the first row. Raises ``ValueError`` where there is none."""
    text = io.StringIO(head.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    reader = standard_csv.reader(text, delimiter=delimiter)
    try:
        names = next((row for row in reader if row), [])
    except standard_csv.Error as error:
        raise ValueError(f"its first line cannot be read: {error}") from error
    if len(head) == _HEADER_BYTES and not text.read(1):
        raise ValueError(f"its first line has more than {_HEADER_BYTES} bytes")
    return [name.encode("latin-1").decode() for name in names]


class _Joined(io.RawIOBase):
    """What was read already, and the rest."""

    def __init__(self, head: bytes, rest: io.BufferedReader) -> None:
        self.head, self.rest, self.at = io.BytesIO(head), rest, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        data = self.head.read(size) or self.rest.read(size)
        self.at += len(data)
        return data


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

    def add(self, number: int, line: bytes) -> None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = one_line(str(error))
            raise ConfigError(
                self.where, f"line {number} of {self.path!r} is not JSON ({why})", "one object a line"
            ) from error
        if not isinstance(row, dict):
            raise ConfigError(
                self.where, f"line {number} of {self.path!r} holds {type(row).__name__}", "one object a line"
            )
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
        for name, found in self.rows.items():
            try:
                self.columns[name].append(pa.array(found))
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
                raise self._no_one_type(name, error) from error
            found.clear()
        self.lines.append(np.array(self.numbers, np.int64))
        self.numbers.clear()
        self.bytes = 0

    def table(self) -> _Whole:
        self.flush()
        columns = {name: self._joined(name) for name in self.wanted if name in self.names}
        schema = [pa.field(name, columns[name].type if name in columns else pa.null()) for name in self.names]
        return _Whole(pa.table(columns), pa.schema(schema), np.concatenate(self.lines))

    def _joined(self, name: str) -> pa.ChunkedArray:
        """The pieces of a column in the one type that holds them all."""
        pieces = self.columns[name]
        try:
            kinds = [pa.schema([(name, piece.type)]) for piece in pieces]
            kind = pa.unify_schemas(kinds, promote_options="permissive").field(name).type
            return pa.chunked_array([piece.cast(kind) for piece in pieces], kind)
        except pa.ArrowException as error:
            raise self._no_one_type(name, error) from error

    def _no_one_type(self, name: str, error: Exception) -> ConfigError:
        return ConfigError(
            self.where, f"column {name!r} of {self.path!r} has no one type ({describe(error)})", "one type a column"
        )


def _jsonl(text: io.BufferedReader, path: str, wanted: set[str], where: str, limits: Limits) -> _Whole:
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
