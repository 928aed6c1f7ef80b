"""Where samples come from. One file for each member.

base.py    Source
_shared/   ids of samples; manifests of every format as tables

It imports `parquet`, `storage` and `core`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.sources import files, manifest
from pipeline.sources.base import Source

SourceConfig = Annotated[files.Config | manifest.Config, Field(discriminator="kind")]

_MEMBERS: dict[type, Any] = {files.Config: files.FilesSource, manifest.Config: manifest.ManifestSource}


def build(config: SourceConfig) -> Source:
    """The source of ``config``."""
    source: Source = _MEMBERS[type(config)](config)
    return source
