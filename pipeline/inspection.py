"""A dataset for a person: features, spaces, rows, failures by kind, sizes, sample rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from pipeline import dataset as datasets
from pipeline.report import size


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
    failures = dataset.failures()
    if len(failures):
        console.print(_failures(failures))
    if rows:
        console.print(_rows(dataset, rows))


def _features(dataset: datasets.Dataset) -> Table:
    table = Table(
        "feature", "modality", "model", "revision", "emits", "dim", "token dim", "rows", box=None, pad_edge=False
    )
    for name, feature in dataset.features.items():
        columns = [c for c in dataset.schema.names if c in {f"{name}_{part}" for part in feature.emit}]
        valid = 0
        for batch in dataset.batches(columns=columns):
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


def _failures(failures: pa.Table) -> Table:
    table = Table("failures", "stage", "kind", "feature", "an example", box=None, pad_edge=False)
    groups = failures.group_by(["stage", "kind", "feature"]).aggregate(
        [("sample_id", "count"), ("sample_id", "min"), ("message", "min")]
    )
    for row in groups.sort_by([("sample_id_count", "descending")]).to_pylist():
        table.add_row(
            str(row["sample_id_count"]),
            row["stage"],
            row["kind"],
            row["feature"] or "–",
            f"{row['sample_id_min']}: {row['message_min']}",
        )
    return table


def _rows(dataset: datasets.Dataset, count: int) -> Table:
    features = list(dataset.features)
    table = Table("sample_id", "window", "seconds", *features, box=None, pad_edge=False)
    shown = 0
    for batch in dataset.batches(batch_size=count):
        for row in batch.to_pylist()[: count - shown]:
            times = "–" if row["start_s"] is None else f"{row['start_s']:g}–{row['end_s']:g}"
            table.add_row(row["sample_id"], str(row["window"]), times, *(_cell(row, name) for name in features))
            shown += 1
        if shown >= count:
            break
    return table


def _cell(row: dict[str, Any], name: str) -> str:
    parts = []
    if (vector := row.get(f"{name}_embedding")) is not None:
        parts.append("[" + " ".join(f"{value:+.2f}" for value in vector[:3]) + (" …]" if len(vector) > 3 else "]"))
    if (grid := row.get(f"{name}_grid")) is not None:
        parts.append("×".join(str(side) for side in grid) + " tokens")
    return " ".join(parts) or "–"
