"""Writes and lists manifests."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.schema import LISTING
from pipeline.sources.manifest import Config, ManifestSource

ROWS: list[dict[str, Any]] = [
    {"key": "007", "pic": "b/1.jpg", "sound": None, "words": 'a "big", red\ncircle', "score": 1, "label": "x"},
    {"key": "NA", "pic": "/abs/2.png", "sound": "s.wav", "words": None, "score": None, "label": "null"},
    {"key": "ünï", "pic": None, "sound": "s3://bucket/a b.ogg", "words": "nan", "score": 3, "label": None},
]


COLUMNS = {"id": "key", "image": "pic", "audio": "sound", "inline_text": "words"}


def write(folder: Path, form: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"m.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if form == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def source(path: Path | str, columns: dict[str, str] = COLUMNS, **options: Any) -> ManifestSource:
    made = ManifestSource(Config(path=str(path), columns=columns, **options))  # type: ignore[arg-type]
    made.check("source")
    return made


def listed(path: Path | str, columns: dict[str, str] = COLUMNS, **options: Any) -> dict[str, dict[str, Any]]:
    made = source(path, columns, **options)
    table = pa.concat_tables(made.list())
    assert table.schema.equals(pa.schema([*LISTING, *made.passthrough()]))
    return {row["sample_id"]: row for row in table.to_pylist()}
