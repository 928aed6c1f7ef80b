"""Compares the listing of the corpus with the content of the dataset.

Both sides are tables of ids. They are compared in partitions of ids, which are spilled to the local disk if they are
large, so memory does not grow with the corpus. A partition is compared as arrays, without a Python loop over samples.

An interrupted run leaves complete write tasks behind. Their rows are part of the dataset's side, with the number of the
run. Rows of a sample that still has to be computed, and of the same source version, are adopted; only the remaining
windows of the sample are computed. Two interrupted runs may have written the same window, if a worker of the first
outlived its driver; then the row of the later run is adopted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.dataset.diff._classification import adopt_rows, classify, count_samples, rows_to_drop
from pipeline.dataset.diff._partition import Partition
from pipeline.dataset.diff._partitioner import SpillingPartitioner
from pipeline.dataset.diff._work_table import work_table
from pipeline.dataset.diff.columns import STATE
from pipeline.dataset.diff.result import Difference


def compare(
    listing: Iterable[pa.Table],
    state: Iterable[pa.Table],
    *,
    emit: Callable[[pa.Table], None],
    keep_deleted: bool = False,
    forgotten: Iterable[str] = (),
    refused_folders: Sequence[str] = (),
    are_refused: Callable[[pa.Table], np.ndarray] | None = None,
) -> Difference:
    """Compares the listing with the content of the dataset.

    Args:
        listing: tables of ``LISTING`` and passthrough columns.
        state: tables of ``STATE``.
        emit: called with tables of samples to compute: the columns of the listing, ``EXTRA`` and
            ``IF_DONE``. They are in the
            listing's order if both sides fit into memory.
        keep_deleted: keep the rows of samples that are not listed any more.
        forgotten: sha256 (hex) of ids that are treated as not listed.
        refused_folders: prefixes of ids that could not be listed, and whose samples do not count as deleted. Read only
            after ``listing`` is exhausted.
        are_refused: checks the files of samples and returns [n] bool. It is called only for samples whose stored rows
            would be replaced; the rows of a refused sample are kept.

    Raises:
        DuplicateIdError: two samples have the same id.
    """
    forgotten_hashes = frozenset(forgotten)
    difference = Difference()
    partitioner = SpillingPartitioner()
    for table in listing:
        partitioner.add(0, table)
    for table in state:
        partitioner.add(1, table)
    for listed, stored in partitioner.partitions():
        if listed is None and stored is None:
            continue
        partition = Partition(
            listed, stored if stored is not None else STATE.empty_table(), forgotten_hashes, refused_folders
        )
        if are_refused is not None:
            partition.refuse(are_refused)
        _compare_partition(partition, difference, emit, keep_deleted)
    return difference


def _compare_partition(
    partition: Partition, difference: Difference, emit: Callable[[pa.Table], None], keep_deleted: bool
) -> None:
    """Compares one partition: adds to ``difference``, and emits the samples to compute."""
    classes = classify(partition)
    adopted = adopt_rows(partition, classes)
    dropped = rows_to_drop(partition, classes, adopted, keep_deleted)
    partition.add_drops(dropped, difference.drops)
    difference.counts.add(count_samples(partition, classes, adopted))
    unfinished = classes.computed & ~adopted.is_complete
    if partition.listed is not None and unfinished.any():
        emit(work_table(partition, classes, adopted, dropped, unfinished))
        difference.work += int(unfinished.sum())
