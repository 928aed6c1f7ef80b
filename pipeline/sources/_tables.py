"""Reading a manifest's table, whatever its format, with the place of every row for error messages."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from fsspec.compression import compr
from fsspec.utils import infer_compression

from pipeline import storage
from pipeline.errors import ConfigError, SampleError, describe, one_line

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

Slices = Iterator[tuple[list[str], pa.Table]]
"""Tables of consecutive rows, each with the places of its rows: ``row 7`` or ``line 7``, counted from 1."""


class Manifest(Protocol):
    @property
    def schema(self) -> pa.Schema:
        """All columns; of those that are not wanted only the name counts."""
        ...

    def read(self, columns: list[str], rows: int) -> Slices:
        """The columns, at most ``rows`` rows a table. Raises ``ConfigError`` for a file that turns out broken."""
        ...


def open_manifest(path: str, form: str | None, strings: set[str], wanted: set[str], where: str) -> Manifest:
    """The table at ``path``.

    Args:
        form: ``parquet``, ``csv``, ``tsv``, ``jsonl``, or None: by the extension (of text, also of ``.csv.gz``).
        strings: columns of a CSV that are strings whatever they look like.
        wanted: columns that will be read.
        where: the manifest's place in the config, for errors.

    Raises:
        ConfigError: unknown extension; cannot be read or parsed, with the line where there is one.
    """
    form = form or _format_of(path, where)
    try:
        blob = storage.Blob(path)
        if form == "parquet":
            return _Parquet(pq.ParquetFile(blob.open(), pre_buffer=False), path, where)
        data = _decompressed(blob.read(), path)
        if form == "jsonl":
            return _jsonl(data, path, wanted, where)
        return _csv(data, "\t" if form == "tsv" else ",", strings)
    except ConfigError:
        raise
    except Exception as error:  # Arrow, the decompressors and any backend may raise anything here
        raise ConfigError(where, f"cannot read {path!r} as {form} ({describe(error)})", "mend or replace it") from error


def _decompressed(data: bytes, path: str) -> bytes:
    """``data`` as its file's extension says (``.gz``, ``.bz2``, ``.xz``, ``.zst``)."""
    compression = infer_compression(path)
    if compression is None:
        return data
    with compr[compression](io.BytesIO(data), mode="rb") as file:
        return bytes(file.read())


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's are those that it points to."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_storable(kind: pa.DataType, name: str, where: str) -> None:
    """Raises ``ConfigError`` for a type that Parquet or Arrow's own kernels cannot carry from a manifest to a shard."""
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
    file: pq.ParquetFile
    path: str
    where: str

    @property
    def schema(self) -> pa.Schema:
        return self.file.schema_arrow

    def read(self, columns: list[str], rows: int) -> Slices:
        names, done = list(dict.fromkeys(columns)), 0
        try:
            for batch in self._batches(rows, names):
                places = [f"row {done + i + 1}" for i in range(len(batch))]
                yield places, pa.Table.from_batches([batch]).select(names)
                done += len(batch)
        except (pa.ArrowException, OSError, SampleError) as error:
            raise ConfigError(
                self.where, f"{self.path!r} breaks off after row {done} ({describe(error)})", "mend or replace it"
            ) from error

    def _batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Row group by row group: a batch over several breaks beside a dictionary column (pyarrow 26)."""
        for group in range(self.file.num_row_groups):
            yield from self.file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)


@dataclass(frozen=True)
class _Whole:
    table: pa.Table
    schema: pa.Schema
    places: list[str] | None = None

    def read(self, columns: list[str], rows: int) -> Slices:
        table = self.table.select(list(dict.fromkeys(columns)))
        for start in range(0, len(table), rows):
            end = min(start + rows, len(table))
            yield (
                self.places[start:end] if self.places else [f"row {i + 1}" for i in range(start, end)],
                table.slice(start, rows),
            )


def _csv(data: bytes, delimiter: str, strings: set[str]) -> _Whole:
    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(strings, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    binary = [field.name for field in table.schema if pa.types.is_binary(field.type)]
    if binary:
        raise ValueError(f"column {binary[0]!r} is not UTF-8")
    return _Whole(table, table.schema)


def _jsonl(data: bytes, path: str, wanted: set[str], where: str) -> _Whole:
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    names: dict[str, None] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = one_line(str(error))
            raise ConfigError(where, f"line {number} of {path!r} is not JSON ({why})", "one object a line") from error
        if not isinstance(row, dict):
            raise ConfigError(where, f"line {number} of {path!r} holds {type(row).__name__}", "one object a line")
        names.update(dict.fromkeys(row))
        rows.append({name: row[name] for name in wanted & row.keys()})
        places.append(f"line {number}")
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values) if name in wanted else pa.nulls(len(rows))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise ConfigError(
                where, f"column {name!r} of {path!r} has no one type ({describe(error)})", "one type a column"
            ) from error
    table = pa.table(columns)
    return _Whole(table, table.schema, places)
