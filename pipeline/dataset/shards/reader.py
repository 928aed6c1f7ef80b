"""Reads one shard of a snapshot, without its deleted rows. Finds the shard if later runs have moved it.

A shard may come from an untrusted source. It is opened by `pipeline.parquet`, must have as many rows as its snapshot
says, and its columns must have the types that the reader expects; otherwise a ``ConfigError`` of one line is raised.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.dataset.commit import data_files
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.shards.filters import kept
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.storage.local_files import RefusedFile
from pipeline.storage.remote_file import RemoteFile

if TYPE_CHECKING:
    import pyarrow.dataset as ds

BATCH_ROWS = 256
"""Default number of rows in a batch."""


class ShardErrors:
    """A context manager for reading a shard: converts errors into a ``ConfigError`` that names dataset and file.

    Args:
        root: the version's folder.
        shard: the file that is read; None: not known.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """

    def __init__(self, root: str, shard: File | None = None) -> None:
        self.root, self.shard = root, shard

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise ConfigError(
                "path", f"a shard of {self.root!r} is gone ({describe(error)})", "restore it, or open another snapshot"
            ) from error
        if isinstance(error, RefusedFile):
            raise ConfigError("path", str(error), "restore it, or open another snapshot") from error
        # pyarrow raises a plain ValueError for a null in a non-nullable column, and for a name that is not UTF-8
        if isinstance(error, (pa.ArrowException, OSError, ValueError)) and not isinstance(error, TesseraError):
            raise _unreadable(self.root, self.shard, describe(error)) from error


def _unreadable(root: str, shard: File | None, reason: str) -> ConfigError:
    name = f"{shard.path!r} of {root!r}" if shard else f"a shard of {root!r}"
    return ConfigError("path", f"{name} cannot be read ({reason})", "restore it, or open another snapshot")


def open_shard(root: str, shard: File, metadata: pq.FileMetaData | None = None) -> parquet.ParquetFile:
    """Opens one file of a snapshot. Raises ``ConfigError`` if its number of rows is not that of the snapshot.

    With ``metadata``, that of the same file opened before, the footer is not read again.
    """
    file = parquet.open_parquet(open_file(root, shard), metadata)
    check_rows(root, shard, file.metadata)
    return file


def check_rows(root: str, shard: File, metadata: pq.FileMetaData) -> None:
    """Raises ``ConfigError`` unless the file has as many rows as the snapshot says."""
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if metadata.num_rows != shard.rows or sum(groups) != shard.rows or min(groups, default=0) < 0:
        raise _unreadable(root, shard, f"the snapshot says {shard.rows} rows, the file {metadata.num_rows}")


def check_columns(root: str, shard: File, found: pa.Schema, names: list[str]) -> None:
    """Raises ``ConfigError`` unless the schema ``found`` has each column of ``names`` exactly once."""
    count = Counter(found.names)
    for name in names:
        if count[name] != 1:
            raise _unreadable(root, shard, f"{count[name]} columns {name!r}")


def open_file(root: str, shard: File) -> BoundedFile:
    """Opens one file of a snapshot as bytes. On an object store, reading continues if a later run moves the file."""
    if storage.is_local(root):
        return BoundedFile(_open_current(root, shard, lambda fs, path: io.FileIO(path)))
    return BoundedFile(RemoteFile(functools.partial(_open_current, root, shard, lambda fs, path: (fs, path))))


def live_rows(
    root: str, shard: File, columns: list[str] | None = None, rows: int = BATCH_ROWS, schema: pa.Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one file that are not deleted, in order.

    Args:
        root: the version's folder.
        shard: one of its files.
        columns: None: all.
        rows: largest number of rows in a batch.
        schema: the types to cast to; None: the stored ones.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    with ShardErrors(root, shard), open_shard(root, shard) as file:
        names = columns or file.schema_arrow.names
        check_columns(root, shard, file.schema_arrow, names)
        yield from live_slice(file, shard, 0, shard.live, names, rows, schema)


def live_slice(
    file: parquet.ParquetFile,
    shard: File,
    start: int,
    end: int,
    columns: list[str],
    rows: int,
    schema: pa.Schema | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows ``[start, end)`` of those that are not deleted. Reads only the row groups that contain them.

    Args:
        file: the open shard.
        shard: the same shard, for its deleted rows.
        start: counts the rows that are not deleted, as ``end`` does.
        end: exclusive.
        columns: names, in the order of the batches.
        rows: largest number of rows in a batch.
        schema: the types to cast to; None: the stored ones.
    """
    deleted = np.array(shard.deleted, np.int64)
    if len(deleted):
        start, end = _position(deleted, start), _position(deleted, end - 1) + 1
    types = None if schema is None else pa.schema([schema.field(name) for name in columns])
    for position, batch in _row_group_batches(file, start, end, rows, columns):
        first, last = max(0, start - position), min(len(batch), end - position)
        if first >= last:
            continue
        found = batch.slice(first, last - first).select(columns)
        if len(deleted):
            is_deleted = np.isin(np.arange(position + first, position + last), deleted)
            found = found.filter(pa.array(~is_deleted)) if is_deleted.any() else found
        if len(found):
            yield found if types is None or found.schema.types == types.types else found.cast(types)


def _row_group_batches(
    file: parquet.ParquetFile, start: int, end: int, rows: int, columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (position of the first row, batch) for the row groups that contain rows ``[start, end)`` of the file.

    A batch never spans row groups, because several of them together may exceed the limits of `BoundedFile`.
    """
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    wanted = [number for number in range(len(sizes)) if starts[number] < end and starts[number + 1] > start]
    for number in (number for part in file.parts(wanted, columns) for number in part):
        position = int(starts[number])
        for batch in file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False):
            yield position, batch
            position += len(batch)


def _position(deleted: np.ndarray, live: int) -> int:
    """Returns the position in the file of row ``live`` of those that are not deleted. ``deleted``: ascending."""
    return live + int(np.searchsorted(deleted - np.arange(len(deleted)), live, side="right"))


def read_shard(
    root: str, shard: File, schema: pa.Schema, names: list[str], filter: ds.Expression | None, columns: list[str]
) -> pa.Table:
    """Reads the rows of one shard that are not deleted and that ``filter`` keeps. Columns that it lacks are null.

    Args:
        root: the version's folder.
        shard: one of its files.
        schema: the types of the columns.
        names: the columns of the result.
        filter: None: keep all rows.
        columns: the columns to read, from `needed`.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    with ShardErrors(root, shard), open_shard(root, shard) as file:
        wanted = [name for name in columns if name in file.schema_arrow.names]
        check_columns(root, shard, file.schema_arrow, wanted)
        # without threads: at exit, an Arrow thread that uses a Python file aborts the process
        parts = file.parts(range(file.num_row_groups), wanted)
        pieces = [file.read_row_groups(part, columns=wanted, use_threads=False) for part in parts]
        table = pa.concat_tables(pieces) if pieces else file.schema_arrow.empty_table().select(wanted)
        table = table.filter(pa.array(np.isin(np.arange(len(table)), shard.deleted, invert=True)))
        for name in columns:
            if name not in wanted:
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
        if filter is not None:
            table = kept(table, filter, names)
        return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


def _open_current(root: str, shard: File, opened: Callable[[Any, str], Any]) -> Any:
    """Finds and opens a shard. A run that commits may move it between the two steps, but only once."""
    folder = DatasetFolder(root)
    try:
        return folder.open(data_files.find(root, shard), opened)
    except FileNotFoundError:
        return folder.open(data_files.find(root, shard), opened)
