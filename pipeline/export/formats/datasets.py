"""Writes a folder of `datasets`, which ``datasets.load_from_disk`` reads.

The rows are first written to one temporary file, so that the disk needs room for them twice: the library divides into
files only what it can count.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.export.destination import Destination
from pipeline.export.libraries import library
from pipeline.export.limits import ShardLimits, library_errors
from pipeline.export.rows import Rows


def check(out: str) -> None:
    """Raises ``ConfigError`` if the library is missing."""
    library("datasets")


def write(rows: Rows, destination: Destination, limits: ShardLimits) -> list[str]:
    """Writes the folder. Returns warnings. Raises what `export_dataset` raises."""
    datasets = library("datasets")
    temporary = os.path.join(destination.scratch, "rows.arrow")
    with library_errors("datasets", destination.out), _without_progress(datasets):
        features = datasets.Features.from_arrow_schema(rows.schema)
        writer = library("datasets.arrow_writer").ArrowWriter(features=features, path=temporary)
        try:
            for batch in rows.batches():
                writer.write_table(pa.Table.from_batches([batch]))
            writer.finalize()
        finally:
            writer.close()
        loaded = datasets.Dataset.from_file(temporary)
        loaded.save_to_disk(
            destination.url,
            num_shards=_shards(len(loaded), os.path.getsize(temporary), limits),
            storage_options=None if destination.is_local else destination.storage_options(),
        )
    storage.remove(temporary)
    return []


def _shards(rows: int, size_bytes: int, limits: ShardLimits) -> int:
    """Returns the number of files, at most one for each row."""
    by_rows = math.ceil(rows / limits.rows) if limits.rows else 1
    return max(1, min(rows, max(by_rows, math.ceil(size_bytes / limits.bytes))))


@contextmanager
def _without_progress(datasets: Any) -> Iterator[None]:
    """Hides the bars of the library, in all of the process, while the block runs."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
