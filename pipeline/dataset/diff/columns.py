"""The columns of the dataset's content, as the comparison reads it, and those of the samples to compute."""

from __future__ import annotations

import pyarrow as pa

from pipeline.dataset.commit.data_files import FileKind

STATE = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("source_version", pa.string()),
        pa.field("window", pa.int32()),
        pa.field("row_kind", pa.int8()),
        pa.field("run", pa.int16()),
        pa.field("file", pa.int32()),
        pa.field("position", pa.int64()),
        pa.field("retry", pa.int8()),
        pa.field("attempts", pa.int32()),
        pa.field("feature", pa.string()),
    ]
)
"""The dataset's content: one row for each stored row, failure and empty window.

``row_kind``: a `FileKind`, or `WINDOW_COUNT`, `REUSABLE_ROW` or `NOT_REUSABLE`. ``run``: 0 for the dataset itself; from
1 on, the number of an interrupted run. ``file`` and ``position``: where the row is stored; -1: nowhere.
"""
WINDOW_COUNT, REUSABLE_ROW, NOT_REUSABLE = range(len(FileKind), len(FileKind) + 3)
"""Further values of ``row_kind``. `WINDOW_COUNT`: ``window`` is the number of windows that the sample was cut into.
`REUSABLE_ROW`: a row of another version, whose columns may be reused. `NOT_REUSABLE`: the other version has a failure
of this sample, so nothing of the sample is reused."""
RETRY_WINDOW, RETRY_SAMPLE = 1, 2
"""Values of ``retry`` of a failure: compute its window again, or the whole sample, if the whole file failed. 0: no
retry."""
_POSITIONS = pa.list_(pa.struct([("file", pa.int32()), ("position", pa.int64())]))
IF_DONE = pa.schema(
    [
        pa.field("/drops", _POSITIONS),
        pa.field("/adopted", _POSITIONS),
        pa.field("/rows_adopted", pa.int32()),
        pa.field("/rows_adopted_with_failures", pa.int32()),
        pa.field("/is_new", pa.bool_()),
    ]
)
"""The columns of the samples to compute that no worker reads: what changes once the sample is computed.

``/drops``: the stored rows that the commit deletes then. ``/adopted``: the rows of interrupted runs that become part of
the dataset then; the sample needs further rows. ``/rows_adopted``, ``/rows_adopted_with_failures``: what they count in
`result.Counts`; ``/is_new``: also as rows of new or changed samples."""
EXTRA = pa.schema(
    [
        pa.field("replaces", pa.bool_()),
        pa.field("windows_done", pa.list_(pa.int32())),
        pa.field(
            "attempts",
            pa.list_(pa.struct([("window", pa.int32()), ("feature", pa.string()), ("attempts", pa.int32())])),
        ),
        pa.field(
            "carry",
            pa.list_(pa.struct([("window", pa.int32()), ("file", pa.int32()), ("position", pa.int64())])),
        ),
    ]
)
"""The columns that the samples to compute have after those of the listing.

``replaces``: the dataset has rows of this sample. ``windows_done``: windows that are not computed. ``attempts``: how
often each feature of a retried window has been tried. ``carry``: rows of another version whose columns may be reused,
and this version's own rows of windows that are retried."""
