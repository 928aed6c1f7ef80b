"""What a dataset holds already, as the difference reads it: ids, versions and positions, never vectors.

Of a snapshot's files only the key columns are read. A run that was killed left *tasks*: each write task ends by
publishing a record that names its files; files without one are not whole work and are removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline import snapshots, storage
from pipeline.difference import CARRY, CARRY_NOT, EMPTY, FAILURE, RETRY_SAMPLE, RETRY_WINDOW, ROW, STATE, TOTAL
from pipeline.errors import TRANSIENT_KINDS, StorageError, describe
from pipeline.snapshots import File, Snapshot

RECORD = b"tessera_task"
"""Key of a task record's metadata: JSON, what the task wrote."""
TASK = pa.schema([pa.field("sample_id", pa.string()), pa.field("source_version", pa.string()), ("windows", pa.int32())])
"""A task record's rows: each sample that it met, and into how many windows that was cut."""
_KEYS = ["sample_id", "source_version", "window"]
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Retry:
    """Which failures are tried again."""

    all: bool = False
    """Whatever their kind, however often they were tried."""
    max_attempts: int = 3
    """Transient ones are tried so often."""
    forbidden: bool = False
    """Those of files that the source did not allow: it allows others now."""


@dataclass
class Killed:
    """What a run that was killed left behind, as far as it is whole."""

    run_id: str
    files: list[tuple[int, File]]
    """(`ROW`, `FAILURE` or `EMPTY`, file)."""
    records: list[str]
    """URLs of the tasks' records."""


def of_snapshot(root: str, snapshot: Snapshot, retry: Retry) -> Iterator[pa.Table]:
    """Tables of ``STATE``. Files are numbered in the order of ``snapshot.files()``."""
    number = 0
    for what, files in ((ROW, snapshot.shards), (FAILURE, snapshot.failures), (EMPTY, snapshot.empty)):
        for file in files:
            yield from _file(root, file, what, number, run=0, retry=retry)
            number += 1


def of_killed(root: str, killed: Sequence[Killed], first: int) -> Iterator[pa.Table]:
    """The same of runs that were killed. Their files are numbered from ``first`` on, in order."""
    number = first
    for run, one in enumerate(killed, 1):
        for what, file in one.files:
            yield from _file(root, file, what, number, run=run, retry=None)
            number += 1
        for record in one.records:
            table = _open(record).read(columns=TASK.names)
            yield _state(table["sample_id"], table["source_version"], table["windows"], TOTAL, run, file=-1, first=-1)


def to_carry(root: str, snapshot: Snapshot) -> Iterator[pa.Table]:
    """The same of another version, whose columns may be taken. Files are numbered as ``snapshot.shards``."""
    for number, file in enumerate(snapshot.shards):
        yield from _file(root, file, CARRY, number, run=0, retry=None)
    for file in snapshot.failures:
        yield from _file(root, file, CARRY_NOT, -1, run=0, retry=None)


def killed_run(root: str, run_id: str) -> Killed:
    """What the tasks of ``run_id`` recorded."""
    folder = storage.join(root, "_runs", run_id, "tasks")
    found = Killed(run_id, [], [])
    for name in storage.list_files(folder, ".parquet"):
        url = storage.join(folder, name)
        record: dict[str, Any] = json.loads(_open(url).schema_arrow.metadata[RECORD])
        found.records.append(url)
        for what, key in ((ROW, "shards"), (FAILURE, "failures"), (EMPTY, "empty")):
            found.files.extend((what, File.of(one)) for one in record[key])
    return found


def _file(root: str, file: File, what: int, number: int, run: int, retry: Retry | None) -> Iterator[pa.Table]:
    """The rows of one file that are not deleted."""
    names = [*_KEYS, *(["stage", "kind", "attempts", "feature"] if what == FAILURE else [])]
    gone = np.array(file.deleted, np.int64)
    position = 0
    for batch in _open(_place(root, file)).iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
        table = pa.Table.from_batches([batch])
        made = _state(
            table["sample_id"], table["source_version"], table["window"], what, run, file=number, first=position
        )
        if what == FAILURE and retry is not None:
            made = _with_retry(made, table, retry)
        if len(gone):
            at = np.arange(position, position + len(table))
            made = made.filter(pa.array(~np.isin(at, gone)))
        position += len(table)
        yield made


def _place(root: str, file: File) -> str:
    try:
        return snapshots.find(root, file)
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


def _with_retry(made: pa.Table, failures: pa.Table, retry: Retry) -> pa.Table:
    """``retry``, ``attempts`` and ``feature`` of failures."""
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


def _open(url: str) -> pq.ParquetFile:
    """Raises ``StorageError``: what a snapshot or a record names is whole, or the place is broken."""
    try:
        return _opened(url)
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(f"cannot read {url!r} ({describe(error)}), which a run wrote whole") from error


def _opened(url: str) -> pq.ParquetFile:
    fs, path = storage.split(url)
    return pq.ParquetFile(path if isinstance(fs, LocalFileSystem) else fs.open(path, "rb"))
