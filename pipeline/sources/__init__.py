"""Sources list the samples of a corpus. One module per kind of source.

base.py      Source, the protocol
files.py     a folder, a glob or one file
manifest.py  a table with one row per sample
_files/      parts of the files source
_manifest/   parts of the manifest source
_tables/     manifests of every format as tables
_shared/     ids and versions of samples; counts of refused rows

A new kind of source is a new file, a line in `SourceConfig` and a line in `_MEMBERS` below.

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
    """Returns the source that ``config`` describes."""
    source: Source = _MEMBERS[type(config)](config)
    return source
