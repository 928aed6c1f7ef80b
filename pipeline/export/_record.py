"""The record that an export leaves in its folder: what was exported, and whether all of it is there."""

from __future__ import annotations

import contextlib
from typing import Any

import pipeline
from pipeline.core import strict_json
from pipeline.core.errors import TesseraError
from pipeline.core.terminal import json_text
from pipeline.dataset import Dataset
from pipeline.dataset.commit.folder import DatasetFolder

NAME = ".tessera-export.json"
"""Begins with a dot, so that `datasets` does not take it for data."""
_MAX_BYTES = 1 << 24


def content(dataset: Dataset, format: str, columns: list[str], token: str, complete: bool) -> bytes:
    """Returns the record as JSON.

    Args:
        dataset: the snapshot.
        format: of the export.
        columns: that are exported.
        token: different in each export, so that two of them cannot write into the same folder.
        complete: False while the export is written.
    """
    values: dict[str, Any] = {
        "complete": complete,
        "format": format,
        "version": dataset.root.rsplit("/", 1)[-1],
        "snapshot": dataset.snapshot,
        "created": dataset.created.isoformat(),
        "run_id": dataset.run_id,
        "rows": dataset.num_rows,
        "columns": columns,
        "lineage": dataset.lineage,
        "tessera": pipeline.__version__,
        "export": token,
    }
    return json_text(values).encode()


def is_interrupted(folder: str) -> bool:
    """Returns whether a folder holds an export that was not finished."""
    with contextlib.suppress(TesseraError, FileNotFoundError):
        found = strict_json.parse(DatasetFolder(folder).read(NAME, _MAX_BYTES), NAME)
        return found.member("complete", True).value is False
    return False
