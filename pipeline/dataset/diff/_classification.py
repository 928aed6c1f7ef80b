"""The classes of the samples of one partition, and which rows of interrupted runs are adopted.

Shapes: [samples] and [stored], as in `_partition.Partition`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff._arrays import WindowSet
from pipeline.dataset.diff._partition import Partition
from pipeline.dataset.diff.columns import RETRY_SAMPLE, RETRY_WINDOW, WINDOW_COUNT
from pipeline.dataset.diff.result import Counts


@dataclass(frozen=True)
class SampleClasses:
    """The class of each sample. The masks are [samples] unless noted."""

    new: np.ndarray
    changed: np.ndarray
    unchanged: np.ndarray
    deleted: np.ndarray
    is_stored: np.ndarray
    """The dataset has rows, failures or empty windows of the sample."""
    retry_sample: np.ndarray
    """Unchanged, and all windows are computed again."""
    retry_windows: np.ndarray
    """Unchanged, and only the failed windows are computed again."""
    retryable_rows: np.ndarray
    """[stored] Committed rows of unchanged samples whose files are not refused."""
    failed_windows: WindowSet
    """The windows to compute again of the samples in ``retry_windows``."""
    in_failed_windows: np.ndarray
    """[stored] The row belongs to one of ``failed_windows``."""

    @property
    def retried(self) -> np.ndarray:
        mask: np.ndarray = self.retry_sample | self.retry_windows
        return mask

    @property
    def computed_as_whole(self) -> np.ndarray:
        """All windows have to be computed."""
        mask: np.ndarray = self.new | self.changed | self.retry_sample
        return mask

    @property
    def computed(self) -> np.ndarray:
        """At least one window has to be computed."""
        mask: np.ndarray = self.computed_as_whole | self.retry_windows
        return mask


@dataclass(frozen=True)
class AdoptedRows:
    """The rows of interrupted runs that become part of the dataset."""

    rows: np.ndarray
    """[stored]"""
    is_complete: np.ndarray
    """[samples] The adopted rows cover everything that had to be computed."""


def classify(partition: Partition) -> SampleClasses:
    """Determines the class of each sample."""
    p, committed = partition, partition.is_committed
    is_stored = p.samples_with(committed)
    is_outdated = p.samples_with(committed & ~p.is_current)
    unchanged = p.is_listed & is_stored & ~is_outdated
    # a retry of a refused file would lose the rows that are stored, and fail again
    retryable = committed & unchanged[p.code] & ~p.is_refused[p.code]
    retry_sample = p.samples_with(retryable & (p.retry == RETRY_SAMPLE))
    retry_windows = p.samples_with(retryable & (p.retry == RETRY_WINDOW)) & ~retry_sample
    failed_windows = p.windows_of(retryable & (p.retry == RETRY_WINDOW) & retry_windows[p.code])
    return SampleClasses(
        new=p.is_listed & ~is_stored,
        changed=p.is_listed & is_stored & is_outdated,
        unchanged=unchanged,
        deleted=is_stored & ~p.is_listed & ~p.is_protected,
        is_stored=is_stored,
        retry_sample=retry_sample,
        retry_windows=retry_windows,
        retryable_rows=retryable,
        failed_windows=failed_windows,
        in_failed_windows=failed_windows.contains(p.code, p.window),
    )


def adopt_rows(partition: Partition, classes: SampleClasses) -> AdoptedRows:
    """Determines which rows of interrupted runs are adopted, and which samples are complete with them."""
    p = partition
    is_wanted = classes.computed_as_whole[p.code] | (classes.retry_windows[p.code] & classes.in_failed_windows)
    rows = p.is_interrupted & (p.row_kind < WINDOW_COUNT) & p.is_current & is_wanted
    rows &= p.of_latest_run(rows)
    num_adopted = p.windows_of(rows).count(p.count)
    num_needed = np.zeros(p.count, np.int64)
    totals = p.is_interrupted & (p.row_kind == WINDOW_COUNT) & p.is_current
    np.maximum.at(num_needed, p.code[totals], p.window[totals])
    num_needed[classes.retry_windows] = classes.failed_windows.count(p.count)[classes.retry_windows]
    is_complete = classes.computed & (num_adopted > 0) & (num_adopted >= num_needed) & (num_needed > 0)
    return AdoptedRows(rows, is_complete)


def rows_to_drop(partition: Partition, classes: SampleClasses, adopted: AdoptedRows, keep_deleted: bool) -> np.ndarray:
    """Returns [stored] bool: rows that the next commit deletes, and rows of interrupted runs that are not adopted."""
    p = partition
    of_whole_samples = (classes.changed | classes.retry_sample | (classes.deleted & (not keep_deleted)))[p.code]
    of_failed_windows = classes.retry_windows[p.code] & classes.in_failed_windows
    is_not_adopted = p.is_interrupted & (p.row_kind < WINDOW_COUNT) & ~adopted.rows
    dropped: np.ndarray = (p.is_committed & (of_whole_samples | of_failed_windows)) | is_not_adopted
    return dropped


def count_samples(partition: Partition, classes: SampleClasses, adopted: AdoptedRows) -> Counts:
    """Counts the samples by class, and the adopted rows."""
    p = partition
    of_new_samples = (classes.new | classes.changed)[p.code]
    with_content = adopted.rows & (p.row_kind != FileKind.EMPTY)
    with_failures = adopted.rows & (p.row_kind == FileKind.FAILURE)
    return Counts(
        new=int(classes.new.sum()),
        changed=int(classes.changed.sum()),
        unchanged=int((classes.unchanged & ~classes.retried).sum()),
        deleted=int(classes.deleted.sum()),
        retried=int(classes.retried.sum()),
        forgotten=p.num_forgotten,
        forbidden=int((p.is_listed & p.is_refused).sum()),
        adopted=int(adopted.is_complete.sum()),
        rows_adopted=len(p.windows_of(with_content)),
        rows_adopted_with_failures=len(p.windows_of(with_failures)),
        new_rows_adopted=len(p.windows_of(with_content & of_new_samples)),
        new_rows_adopted_with_failures=len(p.windows_of(with_failures & of_new_samples)),
    )
