"""Reads the ids, source versions and windows in one file of a dataset, as tables of ``STATE``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from pipeline import parquet, storage
from pipeline.core.errors import StorageError, TesseraError, describe
from pipeline.dataset.commit import data_files
from pipeline.dataset.commit.data_files import File, FileKind
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.diff._retry import FAILURE_COLUMNS, RetryPolicy, with_retry
from pipeline.dataset.diff.columns import STATE
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.storage.remote_file import RemoteFile

_KEYS = ["sample_id", "source_version", "window"]
_BATCH_ROWS = 65_536


class ReadErrors:
    """A context manager for reading a file that a snapshot or a task record names.

    Such a file was written completely. If it cannot be read now, it is damaged or comes from another program.

    Raises:
        StorageError: the file cannot be read.
    """

    def __init__(self, root: str, path: str) -> None:
        self.url = storage.join(root, path)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        expected = (OSError, pa.ArrowException, KeyError, ValueError)
        if isinstance(error, expected) and not isinstance(error, TesseraError):
            raise StorageError(f"cannot read {self.url!r} ({describe(error)}), which a run wrote whole") from error


def read_file(
    root: str, file: File, kind: int, number: int, run: int = 0, retry: RetryPolicy | None = None
) -> Iterator[pa.Table]:
    """Reads the key columns of the rows of one file that are not deleted.

    Args:
        root: the version's folder.
        file: one of its files.
        kind: the ``row_kind`` of the rows.
        number: the file's number; -1: none.
        run: number of the interrupted run that wrote the file; 0: none.
        retry: which failures are tried again; None: failures are not tried again.

    Raises:
        StorageError: the file is missing or cannot be read.
    """
    names = [*_KEYS, *(FAILURE_COLUMNS if kind == FileKind.FAILURE else [])]
    deleted = np.array(file.deleted, np.int64)
    position = 0
    with ReadErrors(root, file.path):
        opened = open_parquet(root, _find(root, file))
        if opened.metadata.num_rows != file.rows:
            raise pa.ArrowInvalid(f"the snapshot says {file.rows} rows, the file {opened.metadata.num_rows}")
        batches = (
            batch
            for part in opened.parts(range(opened.num_row_groups), names)
            for group in part
            for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False)
        )
        for batch in batches:
            table = pa.Table.from_batches([batch])
            state = state_table(key_columns(table, _KEYS), kind, run, file=number, first_position=position)
            if kind == FileKind.FAILURE and retry is not None:
                state = with_retry(state, table, retry)
            if len(deleted):
                positions = np.arange(position, position + len(table))
                state = state.filter(pa.array(~np.isin(positions, deleted)))
            position += len(table)
            yield state


def key_columns(table: pa.Table, names: Sequence[str]) -> list[pa.ChunkedArray]:
    """Returns the columns of ids, source versions and windows.

    Raises:
        pyarrow.ArrowInvalid: a null, or a window that is not an integer of at least 0.
    """
    columns = [table[name] for name in names]
    if any(column.null_count for column in columns):
        raise pa.ArrowInvalid(f"a null in one of {', '.join(names)}")
    if not pa.types.is_integer(columns[2].type):
        raise pa.ArrowInvalid(f"column {names[2]!r} has values of type {columns[2].type}")
    if len(table) and pc.min(columns[2]).as_py() < 0:
        raise pa.ArrowInvalid("a window of a negative number")
    return columns


def state_table(keys: Sequence[pa.ChunkedArray], kind: int, run: int, file: int, first_position: int) -> pa.Table:
    """Returns a table of ``STATE`` without retries.

    Args:
        keys: [n] each: ids, source versions and windows.
        kind: the ``row_kind`` of all rows.
        run: their run.
        file: number of their file; -1: none.
        first_position: position of the first row in the file; -1: the rows have no positions.
    """
    count = len(keys[0])
    positions = np.arange(first_position, first_position + count) if first_position >= 0 else np.full(count, -1)
    columns: list[Any] = [
        *keys,
        pa.array(np.full(count, kind, np.int8)),
        pa.array(np.full(count, run, np.int16)),
        pa.array(np.full(count, file, np.int32)),
        pa.array(positions.astype(np.int64)),
        pa.array(np.zeros(count, np.int8)),
        pa.array(np.zeros(count, np.int32)),
        pa.nulls(count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, names=STATE.names).cast(STATE)


def open_parquet(root: str, path: str) -> parquet.ParquetFile:
    """Opens a Parquet file below ``root``."""
    file: parquet.ParquetFile = DatasetFolder(root).open(path, _open)
    return file


def _open(fs: Any, path: str) -> parquet.ParquetFile:
    file = io.FileIO(path) if isinstance(fs, LocalFileSystem) else RemoteFile(lambda: (fs, path))
    return parquet.open_parquet(BoundedFile(file))


def _find(root: str, file: File) -> str:
    """Returns the current path of a file. Raises ``StorageError`` if it is missing."""
    try:
        return data_files.find(root, file)
    except FileNotFoundError as error:
        raise StorageError(
            f"{file.path!r} of {root!r} is gone: see `tessera snapshots`, `tessera rollback`, or put it back"
        ) from error
