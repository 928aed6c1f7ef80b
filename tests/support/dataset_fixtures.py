"""A small dataset written without Ray: rows through the shard writer, commits through a transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import dataset
from pipeline.dataset.commit.data_files import FileSet
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.write_result import Written
from pipeline.dataset.shards.writer import ShardWriter
from tests.dataset.shards.test_writer import FIELDS, SCHEMA, rows

_IDENTITIES: dict[str, Any] = {"features": {"f": {"a": 1}}, "passthrough": {}}


def write(
    root: Path | str, run_id: str, ids: list[str], failed: dict[int, str] | None = None, replaces: bool = False
) -> Written:
    """One write task of a run."""
    writer = ShardWriter(
        str(root), f"{run_id}-000000", run_id, {"f": [f.name for f in FIELDS]}, SCHEMA, OutputConfig(path="x")
    )
    table = rows(ids, failed or {}, replaces=replaces)
    writer.add(
        table.set_column(table.schema.get_field_index("source_version"), "source_version", [[run_id] * len(ids)])
    )
    return writer.close()


def added(written: Written) -> FileSet:
    return FileSet.of(written.shards, written.failure_shards, written.empty_shards)


def night(
    root: Path | str,
    run_id: str,
    ids: list[str],
    failed: dict[int, str] | None = None,
    drops: dict[str, list[int]] | None = None,
) -> None:
    """A run that wrote ``ids`` and dropped rows (path of a file -> positions)."""
    with Transaction(str(root), "extract", run_id) as transaction:
        transaction.resume_interrupted("identity")
        numbers = {file.path: number for number, (_, file) in enumerate(transaction.files())}
        gone = {numbers[path]: [np.array(positions)] for path, positions in (drops or {}).items()}
        written = write(root, run_id, ids, failed, replaces=bool(drops))
        transaction.commit(transaction.next_snapshot(_IDENTITIES, gone, added(written)))


RUNS = [f"2026010{i}T000000-000{i}" for i in range(1, 10)]


def ids(out: Path | str, **options: Any) -> list[str]:
    """As our reader sees it."""
    return sorted(dataset.open(str(out), **options).to_arrow(["sample_id"])["sample_id"].to_pylist())


def plain(root: Path) -> list[str]:
    """As a reader sees it that knows nothing of snapshots."""
    return sorted(pq.ParquetDataset(root / "data").read(["sample_id"])["sample_id"].to_pylist())
