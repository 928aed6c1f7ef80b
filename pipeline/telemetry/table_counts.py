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
        if (value := pc.sum(table[f"meter_{meter}"]).as_py() or 0.0) > 0:
            yield metric, (), value
    yield from _rows(table)
    yield from _failures(table)


def _rows(table: pa.Table) -> Iterator[Increment]:
    """Yields the rows by modality and outcome. A row with window -1 is none of the dataset."""
    failed = _numbers(pc.list_value_length(table["failures"]))
    cells = _numbers(table["cells"])
    outcomes = np.select([(failed == 0) & (cells > 0), (failed > 0) & (cells > failed), failed > 0], [0, 1, 2], 3)
    modalities = np.zeros(len(table), np.int64)
    for number, modality in enumerate(_BY_SIZE, start=1):
        has_one = pc.is_valid(table[f"{modality}_uri"])
        if modality == "text":
            has_one = pc.or_(has_one, pc.is_valid(table["inline_text"]))
        modalities[has_one.to_numpy()] = number
    width = len(metrics.OUTCOMES)
    counts = np.bincount((modalities * width + outcomes)[_numbers(table["window"]) >= 0])
    for code in np.flatnonzero(counts):
        labels = _MODALITIES[code // width], metrics.OUTCOMES[code % width]
        yield metrics.ROWS, labels, float(counts[code])


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Returns a column of integers [n] int64; null is 0."""
    return np.asarray(pc.fill_null(column, 0).to_numpy(), np.int64)


def _failures(table: pa.Table) -> Iterator[Increment]:
    """Yields the failed cells by kind and stage."""
    cells = pc.list_flatten(table["failures"])
    if not len(cells):
        return
    columns = {name: pc.struct_field(cells, name) for name in metrics.FAILURES.labels}
    found = pa.table(columns).group_by(list(columns), use_threads=False).aggregate([([], "count_all")])
    for one in found.to_pylist():
        yield metrics.FAILURES, (one["kind"], one["stage"]), float(one["count_all"])
