"""Writes the rows of several files that are not deleted into new files, optionally without some samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import schema as schemas
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.dataset._maintenance.steps import MaintenanceResult, require_base
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import File, FileKind, FileSet
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.reader import ShardErrors, check_columns, live_rows, open_shard
from pipeline.dataset.shards.row_files import RowFiles

_MERGED_FRACTION = 0.25
"""A shard of less than this fraction of ``shard_bytes`` is merged with others."""
_SCHEMAS = {FileKind.ROW: schemas.FIXED, FileKind.FAILURE: schemas.FAILURES, FileKind.EMPTY: schemas.EMPTY_WINDOWS}
"""The columns that every file of a kind has."""


@dataclass(frozen=True)
class Rewrite:
    """The result of `rewrite`."""

    files: FileSet
    """The files after the rewrite: those that were kept, and ``written``."""
    replaced: list[File]
    written: list[File]


def rewrite(
    transaction: Transaction,
    files: FileSet,
    select: Callable[[Sequence[File]], list[File]],
    output: OutputConfig,
    excluded_ids: frozenset[str] = frozenset(),
) -> Rewrite:
    """Replaces some files of each kind by new ones, which wait in the run's ``pending/`` for the commit.

    Args:
        transaction: the transaction that will commit the new files.
        files: the files of its base.
        select: files of one kind -> those of them to replace.
        output: the sizes of the new files.
        excluded_ids: ids of samples whose rows are left out.

    Raises:
        ConfigError: a file cannot be read, or files of a kind have different columns.
    """
    kept, replaced, written = list[tuple[FileKind, File]](), list[File](), list[File]()
    for kind, group in files.by_kind():
        selected = select(group)
        new = _write_files(transaction, kind, selected, output, excluded_ids) if selected else []
        kept += [(kind, one) for one in (*(one for one in group if one not in selected), *new)]
        replaced += selected
        written += new
    return Rewrite(FileSet.of_kinds(kept), replaced, written)


def commit_rewrite(
    transaction: Transaction, version: str, done: Rewrite, removed: int, forgotten: tuple[str, ...] | None = None
) -> MaintenanceResult:
    """Commits a snapshot of the files after a rewrite.

    Args:
        transaction: the transaction of the rewrite.
        version: the name of the version.
        done: the rewrite.
        removed: number of rows that it removed, for the result.
        forgotten: see `Snapshot.forgotten`; None: as before.
    """
    base = require_base(transaction)
    next_snapshot = snapshots.next_snapshot(
        base, transaction.run_id, transaction.kind, base.identities, done.files, forgotten
    )
    transaction.commit(next_snapshot)
    return MaintenanceResult(
        version, next_snapshot.number, len(done.replaced), removed, sum(one.bytes for one in done.written)
    )


def is_small(file: File, shard_bytes: int) -> bool:
    """Returns whether a shard is merged with others."""
    return file.bytes < _MERGED_FRACTION * shard_bytes


def files_to_compact(files: Sequence[File], shard_bytes: int) -> list[File]:
    """Returns the files with deleted rows, and the small ones if there are several to merge."""
    small = [one for one in files if is_small(one, shard_bytes)]
    return [one for one in files if one.deleted or (len(small) > 1 and one in small)]


def has_samples(root: str, file: File, sample_ids: Sequence[str]) -> bool:
    """Returns whether ``file`` has a row of one of the samples, deleted rows included."""
    wanted = pa.array(sorted(sample_ids), pa.string())
    schema = pa.schema([schemas.FIXED.field("sample_id")])
    return any(
        pc.any(pc.is_in(batch.column(0), value_set=wanted)).as_py()
        for batch in live_rows(root, replace(file, deleted=()), schema.names, schema=schema)
    )


def _write_files(
    transaction: Transaction, kind: FileKind, files: Sequence[File], output: OutputConfig, excluded_ids: frozenset[str]
) -> list[File]:
    """Writes the rows of ``files`` that are not deleted into new files, and returns those."""
    run_id = transaction.run_id

    def path(number: int) -> tuple[str, str | None]:
        target = f"{kind.folder}/{run_id}-compact-{number:05d}.parquet"
        return target, f"_runs/{run_id}/pending/{target}"

    row_files = RowFiles(transaction.root, _common_schema(transaction.root, kind, files), output, path)
    try:
        for table in _rows(transaction.root, files, row_files.schema, excluded_ids):
            row_files.add(table)
        return row_files.close()
    except BaseException:
        row_files.abort()
        raise


def _rows(root: str, files: Sequence[File], schema: pa.Schema, excluded_ids: frozenset[str]) -> Iterator[pa.Table]:
    """Yields the rows of ``files`` that are neither deleted nor of ``excluded_ids``, as tables of ``schema``."""
    for file in files:
        with ShardErrors(root, file), open_shard(root, file) as opened:
            names = opened.schema_arrow.names
        if unknown := {*names} - {*schema.names}:
            raise ConfigError(
                "path",
                f"{file.path!r} of {root!r} has a column {min(unknown)!r} that others lack",
                "restore the others",
            )
        for batch in live_rows(root, file, schema.names, schema=schema):
            with ShardErrors(root, file):
                table = pa.Table.from_batches([batch]).cast(schema)
                if excluded_ids:
                    ids = pa.array(sorted(excluded_ids), table["sample_id"].type)
                    table = table.filter(pc.invert(pc.is_in(table["sample_id"], value_set=ids)))
            if len(table):
                yield table


def _common_schema(root: str, kind: FileKind, files: Sequence[File]) -> pa.Schema:
    """Returns the schema of the newest file. Its lineage gets a list of the runs whose rows are merged.

    Raises:
        ConfigError: the file lacks columns that every file of its kind has, or has them in other types.
    """
    newest = max(files, key=lambda one: os.path.basename(one.path))
    with ShardErrors(root, newest), open_shard(root, newest) as file:
        schema = file.schema_arrow
    required = schemas.FIXED.names if kind == FileKind.ROW else ["sample_id"]
    check_columns(root, newest, schema, [*schema.names, *required])
    for field in _SCHEMAS[kind]:
        found_type = schema.field(field.name).type if field.name in schema.names else field.type
        if found_type != field.type:
            found = f"{newest.path!r} of {root!r} has a column {field.name!r} of {str(found_type)[:100]}"
            raise ConfigError("path", found, "restore it")
    metadata = dict(schema.metadata or {})
    footer = strict_json.parse(metadata.get(b"tessera", b"{}"), f"the footer of {newest.path!r} of {root!r}")
    footer.object()
    if lineage := footer.plain():
        lineage["compacted"] = sorted({os.path.basename(one.path)[:20] for one in files})
        metadata[b"tessera"] = json.dumps(lineage).encode()
    return schema.with_metadata(metadata)
