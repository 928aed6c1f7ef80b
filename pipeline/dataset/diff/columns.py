"""The columns of both sides of the comparison, and of the work that comes out of it."""

from __future__ import annotations

import pyarrow as pa

STATE = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("source_version", pa.string()),
        pa.field("window", pa.int32()),
        pa.field("what", pa.int8()),
        pa.field("run", pa.int16()),
        pa.field("file", pa.int32()),
        pa.field("position", pa.int64()),
        pa.field("retry", pa.int8()),
        pa.field("attempts", pa.int32()),
        pa.field("feature", pa.string()),
    ]
)
"""The dataset's side. One row for each stored row, failure and empty window, and where it stands (file, position).
``run``: 0 of the dataset itself, from 1 on a killed run's."""
ROW, FAILURE, EMPTY, TOTAL, CARRY, CARRY_NOT = range(6)
"""``what``. TOTAL: ``window`` is the number of windows that the sample was cut into. CARRY: a row of another version,
of which columns may be taken; CARRY_NOT: that version has a failure of this sample, so that it is computed anew."""
RETRY_WINDOW, RETRY_SAMPLE = 1, 2
"""``retry`` of a failure: of its window, or, if it was of the whole file, of the sample."""
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
"""What a row of work carries behind the listing: whether the dataset holds rows of this sample already, the windows
that are not to be computed, how often what is tried again was tried, and where rows of another version are, or this
version's own of windows that are tried again."""
