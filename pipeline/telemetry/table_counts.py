"""What a table of finished rows adds to the metrics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.media import Modality
from pipeline.telemetry import metrics
from pipeline.telemetry.metrics import Metric

Increment = tuple[Metric, tuple[str, ...], float]
"""A counter, the values of its labels, and what is added to it."""
_BY_SIZE: tuple[Modality, ...] = ("text", "image", "audio", "video")
"""Modalities by the size of their rows."""
_MODALITIES = (metrics.NO_MODALITY, *_BY_SIZE)


def of_table(table: pa.Table) -> Iterator[Increment]:
    """Yields the increments of a table that the last stage returned, without zeros.

    The sums over a run are those of its report: cells planned are cells written or failed, so that ``cells`` and
    ``failures`` of a row say whether any of its features was written.
    """
    if not len(table):
        return
    yield metrics.BLOCKS, (), 1.0
    yield metrics.BLOCK_ROWS, (), float(len(table))
    if samples := pc.sum(table["final"]).as_py():
        yield metrics.SAMPLES, (), float(samples)
    for meter, metric in metrics.METERS.items():
        if (value := float(table[f"meter_{meter}"].to_numpy().sum())) > 0:
            yield metric, (), value
    failed = _numbers(pc.list_value_length(table["failures"]))
    yield from _rows(table, failed)
    if failed.any():
        yield from _failures(table)


def _rows(table: pa.Table, failed: np.ndarray) -> Iterator[Increment]:
    """Yields the rows by modality and outcome. A row with window -1 is none of the dataset.

    Args:
        failed: number of failures of each row [n] int64.
    """
    cells = _numbers(table["cells"])
    outcomes = np.where(failed > 0, np.where(cells > failed, 1, 2), np.where(cells > 0, 0, 3))
    modalities = np.zeros(len(table), np.int64)
    for number, modality in enumerate(_BY_SIZE, start=1):
        for name in (f"{modality}_uri", *(("inline_text",) if modality == "text" else ())):
            column = table[name]
            if column.null_count < len(column):
                modalities[column.is_valid().to_numpy()] = number
    width = len(metrics.OUTCOMES)
    counts = np.bincount((modalities * width + outcomes)[_numbers(table["window"]) >= 0])
    for code in np.flatnonzero(counts):
        labels = _MODALITIES[code // width], metrics.OUTCOMES[code % width]
        yield metrics.ROWS, labels, float(counts[code])


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Returns a column of integers [n] int64; null is 0."""
    return np.asarray((pc.fill_null(column, 0) if column.null_count else column).to_numpy(), np.int64)


def _failures(table: pa.Table) -> Iterator[Increment]:
    """Yields the failed cells by kind and stage."""
    cells = pc.list_flatten(table["failures"])
    names = pc.binary_join_element_wise(pc.struct_field(cells, "kind"), pc.struct_field(cells, "stage"), "/")
    for one in pc.value_counts(names).to_pylist():
        kind, _, stage = one["values"].rpartition("/")
        yield metrics.FAILURES, (kind, stage), float(one["counts"])
