"""Where a dataset is written, and the sizes of its files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.section import Section


class OutputConfig(Section):
    path: str = Field(min_length=1)
    """Folder or fsspec URL of the dataset."""
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder below it; null: the current version, or ``v1``."""
    on_delete: Literal["drop", "keep"] = "drop"
    """Rows of samples that the corpus lists no more."""
    shard_bytes: int = Field(default=256 << 20, ge=1 << 10)
    """A shard is closed once it holds this much (bytes as written)."""
    row_group_bytes: int = Field(default=32 << 20, ge=1 << 10)
    """A row group is closed before it holds more (bytes in memory), but for one row."""
    row_group_rows: int = Field(default=1000, ge=1)
    """And once it has this many rows."""
