"""Opens a manifest of any format: a file in Parquet, CSV, TSV or JSON lines, or a folder of Parquet files."""

from __future__ import annotations

import io
import os
from typing import Any

from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.sources._tables import csv_table, jsonl_table, parquet_folder, parquet_table
from pipeline.sources._tables.table_reader import TOTAL_BYTES, Limits, TableReader, too_large
from pipeline.storage.retry import retried

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


def open_manifest(
    path: str,
    form: str | None,
    strings: set[str],
    wanted: set[str],
    where: str,
    limits: Limits,
    separator: str | None = None,
) -> TableReader:
    """Opens the table at ``path``.

    Args:
        form: ``parquet``, ``csv``, ``tsv`` or ``jsonl``; None: by the extension (for text also ``.csv.gz``). A folder
            always holds Parquet files.
        strings: columns of a CSV that are read as strings whatever they look like.
        wanted: columns that will be read.
        where: dotted path of the manifest's path in the config, for errors.
        limits: maximum sizes; larger manifests are refused.
        separator: character between the values of CSV and TSV; None: a comma, for TSV a tab.

    Raises:
        ConfigError: unknown extension; a separator for a format that has none; a manifest that cannot be read or
            parsed, with the line if there is one.
    """
    is_folder = _is_folder(path, where)
    if is_folder and form not in (None, "parquet"):
        raise ConfigError(where, f"{path!r} is a folder", f"a file of {form}, or a folder of Parquet files")
    form = "parquet" if is_folder else form or _format_of(path, where)
    if separator is not None and form not in ("csv", "tsv"):
        raise ConfigError(
            f"{where.rpartition('.')[0]}.separator", f"{path!r} is read as {form}", "null: only CSV and TSV have one"
        )
    try:
        if is_folder:
            return parquet_folder.open_folder(path, wanted, where, limits)
        blob = storage.Blob(path)
        if form == "parquet":
            return parquet_table.open_file(blob.open(), path, where, limits)
        with blob.open() as stored, _text(stored, path, where, limits) as text:
            if form == "jsonl":
                return jsonl_table.read_jsonl(text, path, wanted, where, limits)
            mark = separator or ("\t" if form == "tsv" else ",")
            return csv_table.read_csv(text, mark, path, strings, wanted, where, limits)
    except ConfigError:
        raise
    except Exception as error:  # Arrow, the decompressors and any backend may raise anything here
        raise ConfigError(where, f"cannot read {path!r} as {form} ({describe(error)})", "mend or replace it") from error


def _is_folder(path: str, where: str) -> bool:
    try:
        fs, place = storage.split(path)
        if isinstance(fs, LocalFileSystem):
            return os.path.isdir(place)
        return bool(retried(lambda: fs.info(place))["type"] == "directory")
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError(
            where, f"cannot reach {path!r} ({describe(error)})", "give a path that can be read"
        ) from error


def _text(stored: Any, path: str, where: str, limits: Limits) -> io.BufferedReader:
    """Returns the content of an open file, decompressed by its extension (``.gz``, ``.bz2``, ``.xz``, ``.zst``)."""
    compression = infer_compression(path)
    file = stored if compression is None else compr[compression](stored, mode="rb")
    return io.BufferedReader(_BoundedReader(file, limits.bytes or TOTAL_BYTES, path, where), 1 << 20)


class _BoundedReader(io.RawIOBase):
    """A file that raises ``ConfigError`` once more than ``limit`` bytes were read from it."""

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


def _format_of(path: str, where: str) -> str:
    """Returns the format for the extension of ``path``. Raises ``ConfigError`` for an unknown one."""
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    for ending, form in _EXTENSIONS.items():
        if name.endswith(ending):
            return form
    known = ", ".join(_EXTENSIONS)
    raise ConfigError(where, f"the extension of {path!r} names no format", f"one of {known}, or give source.format")
