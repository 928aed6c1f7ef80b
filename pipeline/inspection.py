"""A dataset for a person: features, spaces, rows, failures by kind, sizes, sample rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from pipeline import dataset as datasets
from pipeline import snapshots, storage
from pipeline.errors import ConfigError, describe
from pipeline.report import size
from pipeline.schema import FAILURES
from pipeline.terminal import Console
from pipeline.upkeep import Done

_MOST_GROUPS = 100
"""Kinds of failures that are shown."""


def show(path: str, rows: int, console: Console) -> None:
    """Print what the dataset at ``path`` holds. Raises ``ConfigError`` if there is none."""
    dataset = datasets.open(path)
    console.print(
        f"{path} · snapshot {dataset.snapshot} · {dataset.num_rows} rows · {dataset.num_failures} failures · "
        f"{len(dataset.shards)} shards, {size(sum(shard.bytes for shard in dataset.shards))}",
        soft_wrap=True,
    )
    console.print(_features(dataset))
    for space, names in dataset.spaces.items():
        console.print(f"space {space}: {', '.join(names)}", soft_wrap=True)
    if dataset.num_failures:
        console.print(_failures(dataset))
    if rows:
        console.print(_rows(dataset, rows))


def show_snapshots(path: str, version: str | None, console: Console) -> None:
    """Print the snapshots of a version, oldest first. Raises ``ConfigError`` if there is none."""
    root = datasets.open(path, version).root
    table = Table("snapshot", "created", "by", "run", "rows", "failures", "shards", box=None, pad_edge=False)
    for number in sorted(snapshots.numbers(root)):
        one = snapshots.read(root, number)
        rows, failures = (sum(file.live for file in files) for files in (one.shards, one.failures))
        table.add_row(str(number), one.created, one.kind, one.run_id, str(rows), str(failures), str(len(one.shards)))
    console.print(table)


def show_versions(path: str, console: Console) -> None:
    """Print the versions of a dataset. Raises ``ConfigError`` if there is none."""
    current = snapshots.current(path)
    if current is None:
        raise snapshots.no_dataset(path)
    table = Table("version", "", "snapshot", "created", "rows", "features", box=None, pad_edge=False)
    for name in snapshots.versions(path):
        one = snapshots.newest(storage.join(path, name))
        assert one is not None
        rows = sum(file.live for file in one.shards)
        features = ", ".join(one.identities.get("features", {}))
        mark = "current" if name == current else ""
        table.add_row(name, mark, str(one.number), one.created, str(rows), features)
    console.print(table)


def show_done(what: str, done: list[Done], console: Console) -> None:
    """Print what upkeep did, a line a version."""
    for one in done:
        told = {
            "rewrote": f"{one.rewritten} files rewritten, {one.removed} deleted rows left out, wrote {size(one.bytes)}",
            "rolled back": "the rows are those of the old snapshot again",
            "forgot": f"{one.removed} rows and failures removed from {one.rewritten} files, wrote {size(one.bytes)}",
            "vacuumed": f"{one.removed} files deleted, {size(one.bytes)} freed",
        }[what]
        console.print(f"{one.version}: {told} · snapshot {one.snapshot}", soft_wrap=True)


def _features(dataset: datasets.Dataset) -> Table:
    table = Table(
        "feature", "modality", "model", "revision", "emits", "dim", "token dim", "rows", box=None, pad_edge=False
    )
    for name, feature in dataset.features.items():
        emitted = {f"{name}_{part}" for part in feature.emit}
        columns = [c for c in dataset.schema.names if c in emitted]
        valid = 0
        for batch in dataset.batches(columns=columns) if columns else ():
            some = pc.is_valid(batch.column(0))
            for i in range(1, batch.num_columns):
                some = pc.or_(some, pc.is_valid(batch.column(i)))
            valid += pc.sum(some).as_py() or 0
        table.add_row(
            name,
            feature.modality,
            feature.model,
            (feature.revision or feature.weights_sha256 or "–")[:12],
            ", ".join(feature.emit),
            str(feature.dim or "–"),
            str(feature.token_dim or "–"),
            str(valid),
        )
    return table


def _failures(dataset: datasets.Dataset) -> Table:
    table = Table("failures", "stage", "kind", "feature", "an example", box=None, pad_edge=False)
    keys, names = ["stage", "kind", "feature"], ["count", "sample_id", "message"]
    groups = FAILURES.empty_table().select([*keys, *names[1:]]).append_column("count", pa.array([], pa.int64()))
    for batch in dataset.failure_batches():
        found = pa.Table.from_batches([batch]).append_column("count", pa.array(np.ones(len(batch), np.int64)))
        joined = pa.concat_tables([groups, found.select(groups.column_names)], promote_options="permissive")
        groups = joined.group_by(keys).aggregate([("count", "sum"), ("sample_id", "min"), ("message", "min")])
        groups = groups.rename_columns([*keys, *names])
    groups = groups.sort_by([("count", "descending")])
    for row in groups.slice(0, _MOST_GROUPS).to_pylist():
        table.add_row(
            str(row["count"]),
            row["stage"],
            row["kind"],
            row["feature"] or "–",
            f"{row['sample_id']}: {row['message']}",
        )
    if len(groups) > _MOST_GROUPS:
        rest = groups.slice(_MOST_GROUPS)
        table.add_row(str(pc.sum(rest["count"]).as_py()), f"of {len(rest)} further kinds", "", "", "")
    return table


def _rows(dataset: datasets.Dataset, count: int) -> Table:
    features = list(dataset.features)
    table = Table("sample_id", "window", "seconds", *features, box=None, pad_edge=False)
    shown = 0
    parts = (f"{name}_{part}" for name in features for part in ("embedding", "grid"))
    columns = ["sample_id", "window", "start_s", "end_s", *(one for one in parts if one in dataset.schema.names)]
    for batch in dataset.batches(columns, batch_size=count):
        for cells in _cells(batch.slice(0, count - shown), features):
            table.add_row(*cells)
            shown += 1
        if shown >= count:
            break
    return table


def _cells(batch: pa.RecordBatch, features: list[str]) -> list[list[str]]:
    """Rows as they are shown; of an embedding the first values, as many as are shown and one more."""
    try:
        kept = [pc.list_slice(one, 0, 4) if pa.types.is_list(one.type) else one for one in batch.columns]
        rows = pa.RecordBatch.from_arrays(kept, names=batch.schema.names).to_pylist()
        return [
            [str(row["sample_id"]), str(row["window"]), _times(row), *(_cell(row, name) for name in features)]
            for row in rows
        ]
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:  # values that no writer makes
        raise ConfigError("path", f"a row cannot be shown ({describe(error)})", "give --rows 0") from error


def _times(row: dict[str, Any]) -> str:
    return "–" if row["start_s"] is None else f"{row['start_s']:g}–{row['end_s']:g}"


def _cell(row: dict[str, Any], name: str) -> str:
    parts = []
    if (vector := row.get(f"{name}_embedding")) is not None:
        values = (f"{value:+.2f}" if value is not None else "–" for value in vector[:3])
        parts.append("[" + " ".join(values) + (" …]" if len(vector) > 3 else "]"))
    if (grid := row.get(f"{name}_grid")) is not None:
        parts.append("×".join(str(side) for side in grid) + " tokens")
    return " ".join(parts) or "–"
