"""The live rows of several files, written into new ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import schema as schemas
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff.columns import EMPTY, FAILURE, ROW
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.reader import ShardErrors, check_columns, live_rows, open_shard
from pipeline.dataset.shards.row_files import RowFiles

_FOLDER = {ROW: "data", FAILURE: "_failures", EMPTY: "_empty"}
_FIELDS = {ROW: schemas.FIXED, FAILURE: schemas.FAILURES, EMPTY: schemas.EMPTY}


def _rewritten(
    transaction: Transaction, what: int, files: Sequence[File], sizes: OutputConfig, without: set[str] | None = None
) -> list[File]:
    """The live rows of ``files`` in new ones, which wait for the commit."""
    folder, run_id = _FOLDER[what], transaction.run_id

    def path(number: int) -> tuple[str, str | None]:
        target = f"{folder}/{run_id}-compact-{number:05d}.parquet"
        return target, f"_runs/{run_id}/pending/{target}"

    out = RowFiles(transaction.root, _schema(transaction.root, what, files), sizes, path)
    try:
        for table in _rows(transaction.root, files, out.schema, without or set()):
            out.add(table)
        return out.close()
    except BaseException:
        out.abort()
        raise


def _rows(root: str, files: Sequence[File], schema: pa.Schema, without: set[str]) -> Iterator[pa.Table]:
    for file in files:
        with ShardErrors(root, file), open_shard(root, file) as opened:
            names = opened.schema_arrow.names
        if more := {*names} - {*schema.names}:
            raise ConfigError(
                "path", f"{file.path!r} of {root!r} has a column {min(more)!r} that others lack", "restore the others"
            )
        for batch in live_rows(root, file, schema.names, schema=schema):
            with ShardErrors(root, file):
                table = pa.Table.from_batches([batch]).cast(schema)
                if without:
                    gone = pc.is_in(table["sample_id"], value_set=pa.array(sorted(without), table["sample_id"].type))
                    table = table.filter(pc.invert(gone))
            if len(table):
                yield table


def _schema(root: str, what: int, files: Sequence[File]) -> pa.Schema:
    """Of the newest file; its lineage says which runs' rows are together now.

    Raises:
        ConfigError: it lacks columns that every file of its kind has, or has them in other types.
    """
    newest = max(files, key=lambda one: os.path.basename(one.path))
    with ShardErrors(root, newest), open_shard(root, newest) as file:
        schema = file.schema_arrow
    check_columns(root, newest, schema, [*schema.names, *(schemas.FIXED.names if what == ROW else ["sample_id"])])
    for field in _FIELDS[what]:
        kind = schema.field(field.name).type if field.name in schema.names else field.type
        if kind != field.type:
            found = f"{newest.path!r} of {root!r} has a column {field.name!r} of {str(kind)[:100]}"
            raise ConfigError("path", found, "restore it")
    metadata = dict(schema.metadata or {})
    footer = strict_json.parse(metadata.get(b"tessera", b"{}"), f"the footer of {newest.path!r} of {root!r}")
    footer.object()
    if lineage := footer.plain():
        lineage["compacted"] = sorted({os.path.basename(one.path)[:20] for one in files})
        metadata[b"tessera"] = json.dumps(lineage).encode()
    return schema.with_metadata(metadata)
