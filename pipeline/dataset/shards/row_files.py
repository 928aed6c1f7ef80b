"""Writes rows into Parquet files of about equal size."""

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
    """Writes rows into consecutive shards of about ``output.shard_bytes``.

    Args:
        root: the version's folder.
        schema: schema of the files, with the metadata of the footer.
        output: the sizes of shards and row groups.
        path: number of a file -> its final path, and its path until it is moved there; None: it is not moved.
    """

    def __init__(
        self, root: str, schema: pa.Schema, output: OutputConfig, path: Callable[[int], tuple[str, str | None]]
    ) -> None:
        self.root, self.schema, self.output, self.path = root, schema, output, path
        self.files: list[File] = []
        """The finished files."""
        self.pending: list[pa.Table] = []
        """Rows that are not written yet."""
        self.pending_bytes, self.pending_rows, self.count = 0, 0, 0
        self.shard: _Shard | None = None

    def add(self, rows: pa.Table) -> None:
        """Adds rows. Full row groups are written; the other rows stay in memory."""
        self.pending.append(rows)
        self.pending_bytes += rows.nbytes
        self.pending_rows += len(rows)
        if self.pending_bytes >= self.output.row_group_bytes or self.pending_rows >= self.output.row_group_rows:
            self._write_groups(all_rows=False)

    def close(self) -> list[File]:
        """Writes all remaining rows, publishes the open file and returns all files."""
        self._write_groups(all_rows=True)
        if self.shard is not None:
            self._close_shard(self.shard)
        return self.files

    def abort(self) -> None:
        """Deletes the file that is being written."""
        if self.shard is not None:
            self.shard.abort()
            self.shard = None

    def _write_groups(self, all_rows: bool) -> None:
        """Writes the pending rows as row groups. ``all_rows``: also an incomplete last row group."""
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
    """A Parquet file that is being written, and hashed at the same time.

    Args:
        root: the version's folder.
        path: the final path of the file.
        pending: its path until it is moved; None: it is written to ``path``.
        schema: its schema, with the metadata of the footer.
    """

    def __init__(self, root: str, path: str, pending: str | None, schema: pa.Schema) -> None:
        self.path, self.pending, self.schema, self.rows = path, pending, schema, 0
        self.atomic_file = DatasetFolder(root).atomic_file(pending or path)
        self.file = _HashingFile(self.atomic_file.__enter__())
        self.writer = pq.ParquetWriter(pa.PythonFile(self.file, mode="w"), schema, **parquet_options(schema))

    def write(self, table: pa.Table, row_group: int) -> None:
        self.writer.write_table(table, row_group_size=max(1, row_group))
        self.rows += len(table)

    def size(self) -> int:
        """Returns the bytes written so far."""
        return self.file.tell()

    def close(self) -> File:
        """Finishes and publishes the file."""
        try:
            self.writer.close()
        except BaseException:
            self.abort()
            raise
        self.atomic_file.__exit__(None, None, None)
        size, digest = self.file.tell(), self.file.digest.hexdigest()
        return File(self.path, self.rows, size, digest, pending=self.pending)

    def abort(self) -> None:
        """Deletes the file. It is not published."""
        error = RuntimeError("write aborted")
        self.file.is_aborted = True
        self.atomic_file.__exit__(type(error), error, None)


class _HashingFile:
    """A write-only file that computes the sha256 of its content."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count, self.digest = file, 0, hashlib.sha256()
        self.is_aborted = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if self.is_aborted:  # the Parquet writer still writes its footer when it is garbage-collected
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
        """Does nothing, so that the Parquet writer does not close the file: `_Shard.close` publishes it."""


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Returns the options of the Parquet writer: no dictionary for vectors (two to five times faster),
    byte-stream-split for float32 and float64, zstd for all columns.

    float16 stays plain: DuckDB does not read byte-stream-split float16 (docs/decisions/0004-float16-is-plain.md).
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
    """Returns ``schema`` with the lineage in its metadata, as it is in the footer of every shard."""
    return schema.with_metadata({b"tessera": json.dumps(lineage).encode()})
