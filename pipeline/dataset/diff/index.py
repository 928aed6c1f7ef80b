"""What a dataset holds already, as the difference reads it: ids, versions and positions, never vectors.

Of a snapshot's files only the key columns are read. A run that was killed left *tasks*: each write task ends by
publishing a record that names its files; files without one are not whole work and are removed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from pipeline import parquet, storage
from pipeline.core import strict_json
from pipeline.core.errors import TRANSIENT_KINDS, StorageError, TesseraError, describe
from pipeline.dataset.commit import data_files
from pipeline.dataset.commit.data_files import FOLDERS, File
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.diff.columns import (
    CARRY,
    CARRY_NOT,
    EMPTY,
    FAILURE,
    RETRY_SAMPLE,
    RETRY_WINDOW,
    ROW,
    STATE,
    TOTAL,
)
from pipeline.parquet.bounded_file import BoundedFile
from pipeline.storage.remote_file import RemoteFile

RECORD = b"tessera_task"
"""Key of a task record's metadata: JSON, what the task wrote."""
TASK = pa.schema([pa.field("sample_id", pa.string()), pa.field("source_version", pa.string()), ("windows", pa.int32())])
"""A task record's rows: each sample that it met, and into how many windows that was cut."""
_KEYS = ["sample_id", "source_version", "window"]
_BATCH_ROWS = 65_536
_MOST_ATTEMPTS = 1_000_000_000


@dataclass(frozen=True)
class RetryPolicy:
    """Which failures are tried again."""

    all: bool = False
    """Whatever their kind, however often they were tried."""
    max_attempts: int = 3
    """Transient ones are tried so often."""
    forbidden: bool = False
    """Those of files that the source did not allow: it allows others now."""


@dataclass
class InterruptedRun:
    """What a run that was killed left behind, as far as it is whole."""

    run_id: str
    files: list[tuple[int, File]]
    """(`ROW`, `FAILURE` or `EMPTY`, file)."""
    records: list[str]
    """Paths of the tasks' records, below the dataset's folder."""


def of_snapshot(root: str, snapshot: Snapshot, retry: RetryPolicy) -> Iterator[pa.Table]:
    """Tables of ``STATE``. Files are numbered in the order of ``snapshot.files()``."""
    number = 0
    for what, files in ((ROW, snapshot.shards), (FAILURE, snapshot.failures), (EMPTY, snapshot.empty)):
        for file in files:
            yield from _file(root, file, what, number, run=0, retry=retry)
            number += 1


def of_killed(root: str, killed: Sequence[InterruptedRun], first: int) -> Iterator[pa.Table]:
    """The same of runs that were killed. Their files are numbered from ``first`` on, in order."""
    number = first
    for run, one in enumerate(killed, 1):
        for what, file in one.files:
            yield from _file(root, file, what, number, run=run, retry=None)
            number += 1
        for record in one.records:
            with _whole(root, record):
                table = _open(root, record).read(columns=TASK.names)
                ids, versions, windows = _keys(table, TASK.names)
                state = _state(ids, versions, windows, TOTAL, run, file=-1, first=-1)
            yield state


def to_carry(root: str, snapshot: Snapshot) -> Iterator[pa.Table]:
    """The same of another version, whose columns may be taken. Files are numbered as ``snapshot.shards``."""
    for number, file in enumerate(snapshot.shards):
        yield from _file(root, file, CARRY, number, run=0, retry=None)
    for file in snapshot.failures:
        yield from _file(root, file, CARRY_NOT, -1, run=0, retry=None)


def killed_run(root: str, run_id: str) -> InterruptedRun:
    """What the tasks of ``run_id`` recorded.

    Raises:
        ConfigError: a record that no task writes.
        StorageError: one that cannot be read.
    """
    folder = f"_runs/{run_id}/tasks"
    found = InterruptedRun(run_id, [], [])
    for name in DatasetFolder(root).list_files(folder, ".parquet"):
        path = f"{folder}/{name}"
        with _whole(root, path):
            text = (_open(root, path).schema_arrow.metadata or {}).get(RECORD, b"")
        record = strict_json.parse(text, storage.join(root, path))
        found.records.append(path)
        for what, key, place in zip((ROW, FAILURE, EMPTY), ("shards", "failures", "empty"), FOLDERS, strict=True):
            for one in record.member(key).items():
                file = File.of(one, place)
                paths = file.path, data_files.contract_1_path(file.path)
                if file.pending not in (None, *(f"_runs/{run_id}/pending/{path}" for path in paths)):
                    one.member("pending").fail("the run's own")
                found.files.append((what, file))
    return found


def _file(root: str, file: File, what: int, number: int, run: int, retry: RetryPolicy | None) -> Iterator[pa.Table]:
    """The rows of one file that are not deleted."""
    names = [*_KEYS, *(["stage", "kind", "attempts", "feature"] if what == FAILURE else [])]
    gone = np.array(file.deleted, np.int64)
    position = 0
    with _whole(root, file.path):
        opened = _open(root, _place(root, file))
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
            ids, versions, windows = _keys(table, _KEYS)
            made = _state(ids, versions, windows, what, run, file=number, first=position)
            if what == FAILURE and retry is not None:
                made = _with_retry(made, table, retry)
            if len(gone):
                at = np.arange(position, position + len(table))
                made = made.filter(pa.array(~np.isin(at, gone)))
            position += len(table)
            yield made


def _keys(table: pa.Table, names: Sequence[str]) -> list[pa.ChunkedArray]:
    """The columns of ids, versions and windows, of which none is null."""
    columns = [table[name] for name in names]
    if any(column.null_count for column in columns):
        raise pa.ArrowInvalid(f"a null in one of {', '.join(names)}")
    if not pa.types.is_integer(columns[2].type):
        raise pa.ArrowInvalid(f"column {names[2]!r} has values of type {columns[2].type}")
    if len(table) and pc.min(columns[2]).as_py() < 0:
        raise pa.ArrowInvalid("a window of a negative number")
    return columns


def _place(root: str, file: File) -> str:
    try:
        return data_files.find(root, file)
    except FileNotFoundError as error:
        raise StorageError(
            f"{file.path!r} of {root!r} is gone: see `tessera snapshots`, `tessera rollback`, or put it back"
        ) from error


def _state(
    ids: pa.ChunkedArray,
    versions: pa.ChunkedArray,
    windows: pa.ChunkedArray,
    what: int,
    run: int,
    file: int,
    first: int,
) -> pa.Table:
    count = len(ids)
    positions = np.arange(first, first + count) if first >= 0 else np.full(count, -1)
    columns: list[Any] = [
        ids,
        versions,
        windows,
        pa.array(np.full(count, what, np.int8)),
        pa.array(np.full(count, run, np.int16)),
        pa.array(np.full(count, file, np.int32)),
        pa.array(positions.astype(np.int64)),
        pa.array(np.zeros(count, np.int8)),
        pa.array(np.zeros(count, np.int32)),
        pa.nulls(count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, names=STATE.names).cast(STATE)


def _with_retry(made: pa.Table, failures: pa.Table, retry: RetryPolicy) -> pa.Table:
    """``retry``, ``attempts`` and ``feature`` of failures."""
    attempts = failures["attempts"].cast(pa.int32())
    counted = pc.and_(pc.greater_equal(attempts, 0), pc.less(attempts, _MOST_ATTEMPTS))
    if not pc.all(counted.fill_null(False)).as_py():
        raise pa.ArrowInvalid("a number of attempts that no run writes")
    again = pa.array([True] * len(made))
    if not retry.all:
        transient = pc.is_in(failures["kind"], value_set=pa.array(TRANSIENT_KINDS))
        # a process of Ray's is also killed for the memory that others take
        killed = pc.and_(pc.equal(failures["kind"], "crash"), pc.equal(failures["stage"], "encode"))
        transient = pc.or_(transient, killed)
        again = pc.and_(transient, pc.less(failures["attempts"], retry.max_attempts))
        if retry.forbidden:
            again = pc.or_(again, pc.equal(failures["kind"], "forbidden"))
    of_sample = pc.or_(pc.equal(failures["stage"], "probe"), pc.is_null(failures["feature"]))
    how = pc.if_else(again, pc.if_else(of_sample, RETRY_SAMPLE, RETRY_WINDOW), 0).cast(pa.int8())
    made = made.set_column(STATE.get_field_index("retry"), STATE.field("retry"), how)
    for name in ("attempts", "feature"):
        field = STATE.field(name)
        made = made.set_column(STATE.get_field_index(name), field, failures[name].cast(field.type))
    return made


class _whole:
    """Around reading what a snapshot or a record names, which was written whole. If it cannot be read, the place is
    broken, or it is somebody else's: raises ``StorageError``."""

    def __init__(self, root: str, path: str) -> None:
        self.url = storage.join(root, path)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        broken = (OSError, pa.ArrowException, KeyError, ValueError)
        if isinstance(error, broken) and not isinstance(error, TesseraError):
            raise StorageError(f"cannot read {self.url!r} ({describe(error)}), which a run wrote whole") from error


def _open(root: str, path: str) -> parquet.File:
    file: parquet.File = DatasetFolder(root).open(path, _opened)
    return file


def _opened(fs: Any, path: str) -> parquet.File:
    file = io.FileIO(path) if isinstance(fs, LocalFileSystem) else RemoteFile(lambda: (fs, path))
    return parquet.open_parquet(BoundedFile(file))
