"""Writes the parts of a manifest that is a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.manifest import ManifestSource

COLUMNS = {"id": "id", "inline_text": "t"}


def part(folder: Path, name: str, ids: list[Any], **columns: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "t": [f"words {one}" for one in ids], **columns}), path)


def places(made: ManifestSource) -> dict[str, str]:
    """id -> place, in the order in which rows are read."""
    parts = made._manifest.read(["id"], 10)
    return {one: part.place(i) for part in parts for i, one in enumerate(part.table["id"].to_pylist())}
