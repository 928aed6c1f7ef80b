"""The table of samples to compute of one partition: the columns of the listing, ``EXTRA`` and ``IF_DONE``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff._arrays import struct_lists
from pipeline.dataset.diff._classification import AdoptedRows, SampleClasses
from pipeline.dataset.diff._partition import Partition
from pipeline.dataset.diff.columns import EXTRA, IF_DONE, NOT_REUSABLE, REUSABLE_ROW


def work_table(
    partition: Partition,
    classes: SampleClasses,
    adopted: AdoptedRows,
    dropped: np.ndarray,
    unfinished: np.ndarray,
) -> pa.Table:
    """Returns the samples in the mask ``unfinished`` ([samples]), in the order of the listing.

    Args:
        dropped: [stored] bool, the rows that are deleted.
    """
    p = partition
    assert p.listed is not None
    codes = np.flatnonzero(unfinished)
    codes = codes[np.argsort(p.listed_row[codes], kind="stable")]
    kept = p.is_committed & classes.retry_windows[p.code] & ~classes.in_failed_windows
    table = p.listed.take(pa.array(p.listed_row[codes]))
    extra = [
        pa.array(classes.is_stored[codes]),
        p.windows_of(adopted.rows | kept).lists(codes),
        _attempts(p, codes, classes.retryable_rows),
        _reusable_rows(p, codes, classes),
        _positions(p, codes, dropped & p.is_committed),
        _positions(p, codes, adopted.rows),
        _windows(p, codes, adopted.rows & (p.row_kind != FileKind.EMPTY)),
        _windows(p, codes, adopted.rows & (p.row_kind == FileKind.FAILURE)),
        pa.array((classes.new | classes.changed)[codes]),
    ]
    for field, column in zip([*EXTRA, *IF_DONE], extra, strict=True):
        table = table.append_column(field, column)
    return table


def _reusable_rows(p: Partition, codes: np.ndarray, classes: SampleClasses) -> pa.Array:
    """Returns the rows whose columns may be reused for each of ``codes``: rows of another version with the same source
    version, and the dataset's own rows that are computed again."""
    is_excluded = p.samples_with(p.row_kind == NOT_REUSABLE) | p.is_refused
    of_other_version = (p.row_kind == REUSABLE_ROW) & p.has_same_version & ~is_excluded[p.code]
    is_recomputed = classes.retry_sample[p.code] | (classes.retry_windows[p.code] & classes.in_failed_windows)
    own = classes.retryable_rows & (p.row_kind == FileKind.ROW) & is_recomputed
    rows, offsets = p.by_code(of_other_version | own, codes)
    columns = [p.window[rows].astype(np.int32), p.file[rows].astype(np.int32), p.position[rows]]
    return struct_lists([pa.array(one) for one in columns], offsets, EXTRA.field("carry").type)


def _windows(p: Partition, codes: np.ndarray, rows: np.ndarray) -> pa.Array:
    """Returns the number of windows of the stored rows in the mask ``rows``, for each of ``codes``."""
    return pa.array(p.windows_of(rows).count(p.count)[codes].astype(np.int32))


def _positions(p: Partition, codes: np.ndarray, rows: np.ndarray) -> pa.Array:
    """Returns where the stored rows in the mask ``rows`` are, for each of ``codes``."""
    found, offsets = p.by_code(rows, codes)
    columns = [p.file[found].astype(np.int32), p.position[found]]
    return struct_lists([pa.array(one) for one in columns], offsets, IF_DONE.field(0).type)


def _attempts(p: Partition, codes: np.ndarray, retryable: np.ndarray) -> pa.Array:
    """Returns how often each feature of each window of ``codes`` has failed. This includes features that are computed
    again only because another feature of the window or sample is retried."""
    rows, offsets = p.by_code(retryable & (p.row_kind == FileKind.FAILURE), codes)
    taken = [column.take(pa.array(rows)).combine_chunks() for column in (p.feature, p.attempts)]
    return struct_lists([pa.array(p.window[rows].astype(np.int32)), *taken], offsets, EXTRA.field("attempts").type)
