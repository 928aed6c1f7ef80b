"""OutputConfig: where a dataset is written, and the sizes of its files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.section import Section


class OutputConfig(Section):
    """The ``output`` section of the config."""

    path: str = Field(min_length=1)
    """Folder or fsspec URL of the dataset."""
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the version, a folder below ``path``; null: the current version, or ``v1``."""
    on_delete: Literal["drop", "keep"] = "drop"
    """What happens to the rows of samples that are not in the corpus any more."""
    shard_bytes: int = Field(default=256 << 20, ge=1 << 10)
    """A shard is closed when it has this size, in bytes as written."""
    row_group_bytes: int = Field(default=32 << 20, ge=1 << 10)
    """Largest size of a row group, in bytes in memory. A single larger row is a row group of its own."""
    row_group_rows: int = Field(default=1000, ge=1)
    """Largest number of rows in a row group."""
