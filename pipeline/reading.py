"""Reading one shard of a snapshot, wherever later runs have moved it, without its deleted rows."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline import snapshots, storage
from pipeline.errors import ConfigError, describe
from pipeline.snapshots import File

BATCH_ROWS = 256
"""Rows that are read at once, unless told."""


class Reading:
    """Around reading: a file that is not found is a ``ConfigError`` that says which dataset lost a shard."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise ConfigError(
                "path", f"a shard of {self.root!r} is gone ({describe(error)})", "restore it, or open another snapshot"
            ) from error


def open_shard(root: str, shard: File) -> pq.ParquetFile:
    """One file of a snapshot, wherever it lies."""
    return pq.ParquetFile(open_file(root, shard), pre_buffer=False)


def open_file(root: str, shard: File) -> pa.NativeFile:
    """The bytes of one file of a snapshot; on an object store reading goes on where a later run moves it."""
    if storage.is_local(root):
        return _found(root, shard, lambda fs, path: pa.OSFile(path))
    return pa.PythonFile(_Followed(root, shard), mode="r")


def live_rows(
    root: str, shard: File, columns: list[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The rows of one file that are not deleted, in order, at most ``rows`` at once."""
    with open_shard(root, shard) as file:
        yield from live_slice(file, shard, 0, shard.live, columns or file.schema_arrow.names, rows)


def live_slice(
    file: pq.ParquetFile, shard: File, start: int, end: int, columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Live rows ``[start, end)`` of one file, at most ``rows`` at once. Reads only the row groups that hold them."""
    deleted = np.array(shard.deleted, np.int64)
    live = np.delete(np.arange(shard.rows), deleted) if len(deleted) else None
    if live is not None:
        start, end = int(live[start]), int(live[end - 1]) + 1
    groups, at, position = [], 0, None
    for number in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(number).num_rows
        if at < end and at + size > start:
            groups.append(number)
            position = at if position is None else position
        at += size
    position = position or 0
    for batch in file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False):
        first, last = max(0, start - position), min(len(batch), end - position)
        place = position
        position += len(batch)
        if first >= last:
            continue
        found = batch.slice(first, last - first).select(columns)
        if live is not None:
            gone = np.isin(np.arange(place + first, place + last), deleted)
            found = found.filter(pa.array(~gone)) if gone.any() else found
        if len(found):
            yield found


def whole(root: str, shard: File, schema: pa.Schema, names: list[str], filter: ds.Expression | None) -> pa.Table:
    """The live rows of one file that ``filter`` keeps."""
    with Reading(root):
        if not shard.deleted:
            return scanner(root, shard, schema, names, filter, BATCH_ROWS).to_table()
        with open_shard(root, shard) as file:
            table = file.read(columns=names if filter is None else schema.names, use_threads=True)
    table = table.filter(pa.array(np.isin(np.arange(len(table)), shard.deleted, invert=True)))
    if filter is not None:
        table = ds.dataset(table).to_table(columns=names, filter=filter)
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


def filtered(
    batches: Iterator[pa.RecordBatch], filter: ds.Expression | None, names: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """What ``filter`` keeps of batches that have all columns, at most ``rows`` at once; without one, the batches."""
    for batch in batches:
        if filter is None:
            yield batch
            continue
        kept = ds.dataset(pa.Table.from_batches([batch])).to_table(columns=names, filter=filter)
        yield from (one for one in kept.to_batches(max_chunksize=rows) if len(one))


def scanner(
    root: str, shard: File, schema: pa.Schema, names: list[str], filter: ds.Expression | None, batch_size: int
) -> ds.Scanner:
    """Arrow's scanner over one file, opened here, so that a move meanwhile does not matter."""
    fragment = ds.ParquetFileFormat().make_fragment(open_file(root, shard))
    return fragment.scanner(schema=schema, columns=names, filter=filter, batch_size=batch_size)


def _found(root: str, shard: File, opened: Callable[[Any, str], Any]) -> Any:
    """A shard wherever it lies: a run that commits may move it between looking and opening, but not twice."""
    try:
        return opened(*storage.split(snapshots.find(root, shard)))
    except FileNotFoundError:
        return opened(*storage.split(snapshots.find(root, shard)))


class _Followed(io.RawIOBase):
    """A shard on an object store, which has no open files: moved while it is read, it is found again."""

    def __init__(self, root: str, shard: File) -> None:
        self._open = functools.partial(_found, root, shard, lambda fs, path: fs.open(path, "rb"))
        self._file, self._at = self._open(), 0

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._read(size)
        except FileNotFoundError:
            self._file.close()
            self._file = self._open()
            data = self._read(size)
        self._at += len(data)
        return data

    def _read(self, size: int) -> bytes:
        self._file.seek(self._at)
        data: bytes = self._file.read(size)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
