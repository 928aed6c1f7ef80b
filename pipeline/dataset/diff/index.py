"""The content of a dataset, as the comparison reads it: ids, source versions and positions, but no vectors.

Of the files of a snapshot only the key columns are read. An interrupted run leaves *tasks*: each write task ends by
publishing a record that names its files. Files that no record names are incomplete work, and are deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline import storage
from pipeline.core import strict_json
from pipeline.dataset.commit import data_files
from pipeline.dataset.commit.data_files import File, FileKind
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.diff._retry import RetryPolicy
from pipeline.dataset.diff._stored_rows import ReadErrors, key_columns, open_parquet, read_file, state_table
from pipeline.dataset.diff.columns import NOT_REUSABLE, REUSABLE_ROW, WINDOW_COUNT

__all__ = ["RECORD", "TASK", "InterruptedRun", "RetryPolicy", "killed_run", "of_killed", "of_snapshot", "to_carry"]

RECORD = b"tessera_task"
"""Key of the metadata of a task record: JSON, the files that the task wrote."""
TASK = pa.schema([pa.field("sample_id", pa.string()), pa.field("source_version", pa.string()), ("windows", pa.int32())])
"""The rows of a task record: each sample of the task, and the number of windows that it was cut into."""
_RECORD_LISTS = {FileKind.ROW: "shards", FileKind.FAILURE: "failures", FileKind.EMPTY: "empty"}


@dataclass
class InterruptedRun:
    """The complete work that an interrupted run left."""

    run_id: str
    files: list[tuple[FileKind, File]]
    records: list[str]
    """Paths of the task records, relative to the version's folder."""


def of_snapshot(root: str, snapshot: Snapshot, retry: RetryPolicy) -> Iterator[pa.Table]:
    """Yields the content of a snapshot, as tables of ``STATE``. Files are numbered as in ``snapshot.files()``.

    Raises:
        StorageError: a file is missing or cannot be read. Also raised by the other functions of this module.
    """
    for number, (kind, file) in enumerate(snapshot.file_set.with_kinds()):
        yield from read_file(root, file, kind, number, retry=retry)


def of_killed(root: str, killed: Sequence[InterruptedRun], first: int) -> Iterator[pa.Table]:
    """Yields the complete work of interrupted runs, as tables of ``STATE``.

    Args:
        root: the version's folder.
        killed: the runs, which are numbered from 1 on.
        first: number of the first file. Files are numbered in the order of the runs.
    """
    number = first
    for run, one in enumerate(killed, 1):
        for kind, file in one.files:
            yield from read_file(root, file, kind, number, run)
            number += 1
        for record in one.records:
            with ReadErrors(root, record):
                keys = key_columns(open_parquet(root, record).read(columns=TASK.names), TASK.names)
                state = state_table(keys, WINDOW_COUNT, run, file=-1, first_position=-1)
            yield state


def to_carry(root: str, snapshot: Snapshot) -> Iterator[pa.Table]:
    """Yields the rows of another version, whose columns may be reused, as tables of ``STATE``.

    Files are numbered as in ``snapshot.shards``.
    """
    for number, file in enumerate(snapshot.shards):
        yield from read_file(root, file, REUSABLE_ROW, number)
    for file in snapshot.failures:
        yield from read_file(root, file, NOT_REUSABLE, number=-1)


def killed_run(root: str, run_id: str) -> InterruptedRun:
    """Reads the task records of the interrupted run ``run_id``.

    Raises:
        ConfigError: a record that no task writes.
        StorageError: a record that cannot be read.
    """
    folder = f"_runs/{run_id}/tasks"
    found = InterruptedRun(run_id, [], [])
    for name in DatasetFolder(root).list_files(folder, ".parquet"):
        path = f"{folder}/{name}"
        with ReadErrors(root, path):
            text = (open_parquet(root, path).schema_arrow.metadata or {}).get(RECORD, b"")
        record = strict_json.parse(text, storage.join(root, path))
        found.records.append(path)
        for kind, key in _RECORD_LISTS.items():
            for one in record.member(key).items():
                file = File.of(one, kind.folder)
                paths = file.path, data_files.contract_1_path(file.path)
                if file.pending not in (None, *(f"_runs/{run_id}/pending/{path}" for path in paths)):
                    one.member("pending").fail("the run's own")
                found.files.append((kind, file))
    return found
