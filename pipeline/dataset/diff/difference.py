"""The corpus's listing against the dataset: which samples are new, changed, unchanged, deleted or to be tried again.

Both sides are tables of ids. They are compared in partitions of ids, spilled to this machine's disk where they are
many, so memory does not grow with the corpus; and as arrays, without a Python loop over samples.

A run that was killed left whole tasks behind. What they wrote is on the dataset's side too, as a ``run``'s: rows of
a sample that is still to be done, of the same version, are kept, and only its other windows are computed. Two killed
runs may have done the same window, if a worker of the first outlived its driver; then the later run's counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.dataset.diff._exchange import _SpillingPartitioner
from pipeline.dataset.diff._partition import _Partition
from pipeline.dataset.diff.columns import (
    STATE,
)
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
    """Compare the listing with what the dataset holds.

    Args:
        listing: tables of ``LISTING`` + passthrough.
        state: tables of ``STATE``.
        emit: takes tables of work: listing + ``EXTRA``. In the listing's order where all fits into memory.
        keep_deleted: rows of samples that are listed no more stay.
        forgotten: sha256 (hex) of ids that are treated as not listed.
        refused_folders: ids that begin so were not listed, and yet are not deleted. Read once ``listing`` has ended.
        are_refused: looks at the files of samples ([n] bool). It is asked for those alone whose stored rows would be
            replaced: of a refused one they stay.

    Raises:
        DuplicateIdError: two samples of one id.
    """
    barred = frozenset(forgotten)
    done = Difference()
    exchange = _SpillingPartitioner()
    for table in listing:
        exchange.add(0, table)
    for table in state:
        exchange.add(1, table)
    for listed, stored in exchange.partitions():
        if listed is None and stored is None:
            continue
        partition = _Partition(listed, stored if stored is not None else STATE.empty_table(), barred, refused_folders)
        if are_refused is not None:
            partition.refuse(are_refused)
        partition.compare(done, emit, keep_deleted)
    return done


# -- partitions -----------------------------------------------------------------------------------
