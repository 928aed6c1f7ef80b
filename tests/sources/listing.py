"""Lists folders of files as tests compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core.schema import LISTING, ROLES
from pipeline.sources.files import Config, FilesSource


def listed(path: Path | str, **options: Any) -> dict[str, dict[str, str]]:
    """Returns sample_id -> the values of its row that are not null."""
    source = FilesSource(Config(path=str(path), **options))
    source.check("source")
    tables = list(source.list())
    for table in tables:
        assert table.schema.equals(LISTING)
        ids = table["sample_id"].to_pylist()
        assert ids == sorted(ids)
    rows = pa.concat_tables(tables).to_pylist()
    found = {row["sample_id"]: {k: v for k, v in row.items() if v is not None} for row in rows}
    assert len(found) == len(rows)
    return found


def uris(row: dict[str, str]) -> dict[str, str]:
    return {role: row[f"{role}_uri"] for role in ROLES if f"{role}_uri" in row}


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root
