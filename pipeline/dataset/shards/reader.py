"""Reads one shard of a snapshot, wherever later runs have moved it, without its deleted rows.

A shard may come from somebody else. It is opened by `pipeline.parquet`, has as many rows as its snapshot says, and its
columns have the types that the reader expects; else it is a ``ConfigError`` of one line.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.dataset.commit import data_files
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.storage.local_files import RefusedFile
from pipeline.storage.remote_file import RemoteFile

BATCH_ROWS = 256
"""Rows that are read at once, unless told."""


class ShardErrors:
    """Around reading: a file that is not found, or cannot be read, is a ``ConfigError`` that names dataset and file."""

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
        # pyarrow raises a bare ValueError for a null where none may be, and for a name that is not UTF-8
        if isinstance(error, (pa.ArrowException, OSError, ValueError)) and not isinstance(error, TesseraError):
            raise _broken(self.root, self.shard, describe(error)) from error


def _broken(root: str, shard: File | None, why: str) -> ConfigError:
    name = f"{shard.path!r} of {root!r}" if shard else f"a shard of {root!r}"
    return ConfigError("path", f"{name} cannot be read ({why})", "restore it, or open another snapshot")


def open_shard(root: str, shard: File) -> parquet.File:
    """One file of a snapshot, wherever it lies. Raises ``ConfigError`` if it has other rows than the snapshot says."""
    file = parquet.open_parquet(open_file(root, shard))
    check_rows(root, shard, file.metadata)
    return file


def check_rows(root: str, shard: File, metadata: pq.FileMetaData) -> None:
    """Raises ``ConfigError`` unless the file has the rows that the snapshot says."""
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if metadata.num_rows != shard.rows or sum(groups) != shard.rows or min(groups, default=0) < 0:
        raise _broken(root, shard, f"the snapshot says {shard.rows} rows, the file {metadata.num_rows}")


def check_columns(root: str, shard: File, found: pa.Schema, names: list[str]) -> None:
    """Raises ``ConfigError`` unless the file has each of the columns, once."""
    count = Counter(found.names)
    for name in names:
        if count[name] != 1:
            raise _broken(root, shard, f"{count[name]} columns {name!r}")


def open_file(root: str, shard: File) -> BoundedFile:
    """The bytes of one file of a snapshot; on an object store reading goes on where a later run moves it."""
    if storage.is_local(root):
        return BoundedFile(_found(root, shard, lambda fs, path: io.FileIO(path)))
    return BoundedFile(RemoteFile(functools.partial(_found, root, shard, lambda fs, path: (fs, path))))


def live_rows(
    root: str, shard: File, columns: list[str] | None = None, rows: int = BATCH_ROWS, schema: pa.Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one file that are not deleted, in order, at most ``rows`` at once; in the types of ``schema`` if it
    is given."""
    with ShardErrors(root, shard), open_shard(root, shard) as file:
        names = columns or file.schema_arrow.names
        check_columns(root, shard, file.schema_arrow, names)
        yield from live_slice(file, shard, 0, shard.live, names, rows, schema)


def live_slice(
    file: parquet.File,
    shard: File,
    start: int,
    end: int,
    columns: list[str],
    rows: int,
    schema: pa.Schema | None = None,
) -> Iterator[pa.RecordBatch]:
    """Live rows ``[start, end)`` of one file, at most ``rows`` at once. Reads only the row groups that hold them."""
    deleted = np.array(shard.deleted, np.int64)
    if len(deleted):
        start, end = _position(deleted, start), _position(deleted, end - 1) + 1
    types = None if schema is None else pa.schema([schema.field(name) for name in columns])
    for position, batch in _by_group(file, start, end, rows, columns):
        first, last = max(0, start - position), min(len(batch), end - position)
        place = position
        if first >= last:
            continue
        found = batch.slice(first, last - first).select(columns)
        if len(deleted):
            gone = np.isin(np.arange(place + first, place + last), deleted)
            found = found.filter(pa.array(~gone)) if gone.any() else found
        if len(found):
            yield found if types is None or found.schema.types == types.types else found.cast(types)


def _by_group(
    file: parquet.File, start: int, end: int, rows: int, columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (position of its first row, batch) of the row groups that hold rows ``[start, end)``. Each is within the
    bounds of `BoundedFile`; a batch over many of them would not be."""
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    wanted = [number for number in range(len(sizes)) if starts[number] < end and starts[number + 1] > start]
    for number in (number for part in file.parts(wanted, columns) for number in part):
        position = int(starts[number])
        for batch in file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False):
            yield position, batch
            position += len(batch)


def _position(deleted: np.ndarray, live: int) -> int:
    """Where the live row of a number is. ``deleted``: positions, ascending."""
    return live + int(np.searchsorted(deleted - np.arange(len(deleted)), live, side="right"))


def needed(schema: pa.Schema, names: list[str], filter: ds.Expression | None) -> list[str]:
    """Returns ``names`` and the columns that ``filter`` reads: without one of these it does not bind."""
    if filter is None:
        return names
    empty = schema.empty_table()

    def binds(name: str) -> bool:
        try:
            ds.dataset(empty.drop_columns([name])).scanner(filter=filter)
        except (pa.ArrowException, TypeError):
            return False
        return True

    return [*names, *(name for name in schema.names if name not in names and not binds(name))]


def whole(
    root: str, shard: File, schema: pa.Schema, names: list[str], filter: ds.Expression | None, columns: list[str]
) -> pa.Table:
    """Returns the live rows of one file that ``filter`` keeps. A column that the file lacks is null.

    ``columns``: those to read, as `needed` finds them.
    """
    with ShardErrors(root, shard), open_shard(root, shard) as file:
        wanted = [name for name in columns if name in file.schema_arrow.names]
        check_columns(root, shard, file.schema_arrow, wanted)
        # without threads: a thread of Arrow that holds a Python file at exit aborts the process
        parts = file.parts(range(file.num_row_groups), wanted)
        pieces = [file.read_row_groups(part, columns=wanted, use_threads=False) for part in parts]
        table = pa.concat_tables(pieces) if pieces else file.schema_arrow.empty_table().select(wanted)
        table = table.filter(pa.array(np.isin(np.arange(len(table)), shard.deleted, invert=True)))
        for name in columns:
            if name not in wanted:
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
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


def _found(root: str, shard: File, opened: Callable[[Any, str], Any]) -> Any:
    """A shard wherever it lies: a run that commits may move it between looking and opening, but not twice."""
    folder = DatasetFolder(root)
    try:
        return folder.open(data_files.find(root, shard), opened)
    except FileNotFoundError:
        return folder.open(data_files.find(root, shard), opened)
