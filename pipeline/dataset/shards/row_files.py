"""Rows on their way into Parquet files of about one size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.schema import FIXED
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.output import OutputConfig

_STRINGS = (pa.string(), pa.large_string())


class RowFiles:
    """Rows of one destination on their way into shards of about ``output.shard_bytes``.

    Args:
        root: the dataset's version folder.
        schema: of the files, with the footer's metadata.
        output: sizes.
        path: number of a file -> where it belongs, and where it waits.
    """

    def __init__(
        self, root: str, schema: pa.Schema, output: OutputConfig, path: Callable[[int], tuple[str, str | None]]
    ) -> None:
        self.root, self.schema, self.output, self.path = root, schema, output, path
        self.files: list[File] = []
        self.pending: list[pa.Table] = []
        self.pending_bytes, self.pending_rows, self.count = 0, 0, 0
        self.shard: _Shard | None = None

    def add(self, rows: pa.Table) -> None:
        """Take rows. Whole row groups of them are written, the rest waits for more."""
        self.pending.append(rows)
        self.pending_bytes += rows.nbytes
        self.pending_rows += len(rows)
        if self.pending_bytes >= self.output.row_group_bytes or self.pending_rows >= self.output.row_group_rows:
            self._write_groups(all_rows=False)

    def close(self) -> list[File]:
        """Publish what is open; all files."""
        self._write_groups(all_rows=True)
        if self.shard is not None:
            self._close_shard(self.shard)
        return self.files

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        if self.shard is not None:
            self.shard.abort()
            self.shard = None

    def _write_groups(self, all_rows: bool) -> None:
        """Write what is pending, row group by row group. ``all_rows``: also the last, which may have more to come."""
        if not self.pending:
            return
        table = pa.concat_tables(self.pending).combine_chunks()
        fitting = self.output.row_group_bytes * len(table) // max(1, table.nbytes)
        group = max(1, min(self.output.row_group_rows, fitting))
        start = 0
        while start < len(table) and (all_rows or start + group <= len(table)):
            if self.shard is None:
                self.shard = _Shard(self.root, *self.path(self.count), self.schema)
                self.count += 1
            self.shard.write(table.slice(start, group), group)
            start += group
            if self.shard.size() >= self.output.shard_bytes:
                self._close_shard(self.shard)
        rest = table.slice(start)
        self.pending, self.pending_rows = [rest] if len(rest) else [], len(rest)
        self.pending_bytes = rest.nbytes if len(rest) else 0

    def _close_shard(self, shard: _Shard) -> None:
        self.shard = None
        self.files.append(shard.close())


class _Shard:
    """One Parquet file on its way, hashed as it is written."""

    def __init__(self, root: str, path: str, pending: str | None, schema: pa.Schema) -> None:
        self.path, self.pending, self.schema, self.rows = path, pending, schema, 0
        self.atomic_file = DatasetFolder(root).atomic_file(pending or path)
        self.file = _Hashed(self.atomic_file.__enter__())
        self.writer = pq.ParquetWriter(pa.PythonFile(self.file, mode="w"), schema, **parquet_options(schema))

    def write(self, table: pa.Table, row_group: int) -> None:
        self.writer.write_table(table, row_group_size=max(1, row_group))
        self.rows += len(table)

    def size(self) -> int:
        return self.file.tell()

    def close(self) -> File:
        try:
            self.writer.close()
        except BaseException:
            self.abort()
            raise
        self.atomic_file.__exit__(None, None, None)
        size, digest = self.file.tell(), self.file.digest.hexdigest()
        return File(self.path, self.rows, size, digest, pending=self.pending)

    def abort(self) -> None:
        error = RuntimeError("write aborted")
        self.file.abandoned = True
        self.atomic_file.__exit__(type(error), error, None)


class _Hashed:
    """A write-only file that knows the sha256 of what went through."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count, self.digest = file, 0, hashlib.sha256()
        self.abandoned = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if self.abandoned:  # Parquet's writer, collected later, still wants to write its footer
            return view.nbytes
        self.file.write(view)
        self.digest.update(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        self.file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Closing is the publisher's, not Parquet's."""


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """No dictionary for vectors (two to five times faster), byte-stream-split for float32 and float64, zstd for all.

    float16 is left plain: DuckDB does not read it split (docs/decisions/0004-float16-is-plain.md).
    """
    dictionary, split = [], []
    for column in schema:
        if column.type in _STRINGS:
            dictionary.append(column.name)
        path, kind = column.name, column.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if kind in (pa.float32(), pa.float64()) and path != column.name:
            split.append(path)
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": dictionary,
        "use_byte_stream_split": split,
        "column_encoding": None,
        "write_statistics": [c.name for c in schema if c.name in FIXED.names],
        "write_page_index": True,
    }


def footer(schema: pa.Schema, lineage: dict[str, Any]) -> pa.Schema:
    """``schema`` with the lineage that every shard's metadata carries."""
    return schema.with_metadata({b"tessera": json.dumps(lineage).encode()})
