"""The columns of rows between stages, their failures and their meters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import SampleError, StageName, describe, out_of_memory
from pipeline.core.media import MODALITIES
from pipeline.core.schema import METERS

FAILURE_TYPE = pa.struct(
    [pa.field(name, pa.string()) for name in ("feature", "uri", "stage", "kind", "message")],
)
"""A `Failure` as an Arrow value."""

STORED_WINDOWS = "/stored_windows"
"""Column of retried rows: how many rows the dataset has of the sample. Neither a column of a manifest nor an input of a
feature (``<feature>/<input>``) can have such a name."""
ROWS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("source_version", pa.string(), nullable=False),
        *(pa.field(f"{modality}_uri", pa.string()) for modality in MODALITIES),
        pa.field("inline_text", pa.string()),
        pa.field("text_timed", pa.bool_()),
        pa.field("text_from", pa.int64()),
        pa.field("text_to", pa.int64()),
        pa.field("windows", pa.int32()),
        pa.field("promised", pa.int32()),
        pa.field("replaces", pa.bool_()),
        pa.field("attempts", pa.list_(pa.struct([("feature", pa.string()), ("attempts", pa.int32())]))),
        pa.field(STORED_WINDOWS, pa.int32()),
        pa.field("carry_file", pa.int32()),
        pa.field("carry_position", pa.int64()),
        pa.field("final", pa.bool_()),
        pa.field("cells", pa.int32()),
        pa.field("failures", pa.list_(FAILURE_TYPE)),
        *(pa.field(f"meter_{name}", pa.float64()) for name in METERS),
    ]
)
"""Columns of a row after `ProbeStage`. Passthrough columns follow, then what tokenizers and encoders add.

- ``<modality>_uri``: the file that holds the modality in this window, or null.
- ``text_from``, ``text_to``: bounds of a window of tokens in its text, in characters.
- ``windows``: number of windows of the sample.
- ``final``: this is the sample's last row of the run. Its ``promised`` is the sample's number of rows in the run.
- ``replaces``: the dataset already has the sample.
- ``attempts``: how often each feature of this window has failed before; null if the sample is not a retry.
- ``carry_file``, ``carry_position``: the stored row with columns to reuse. It is a row of another version, which has
  the columns of unchanged features; or the row of this version that this one replaces after a failure.
- ``cells``: number of features that this row should have.

A row with window -1 is no row of the dataset: it accounts for a sample of which nothing is left to compute.
"""


@dataclass(frozen=True)
class Failure:
    """Why a feature of a row could not be computed.

    Args:
        feature: name of the feature; None if the failure belongs to no single feature.
        uri: the file.
        stage: the step of the pipeline.
        kind: kind of the error.
        message: text of the error.
    """

    feature: str | None
    uri: str | None
    stage: StageName
    kind: str
    message: str


def failure(feature: str | None, uri: str | None, stage: StageName, error: Exception) -> Failure:
    """Makes the `Failure` of an exception. No other code does."""
    if isinstance(error, SampleError):
        return Failure(feature, uri, stage, error.kind, error.message)
    return Failure(feature, uri, stage, "memory" if out_of_memory(error) else "internal", describe(error))


def failure_column(rows: Sequence[Sequence[Failure]]) -> pa.Array:
    """Returns the ``failures`` column for the failures of each row."""
    return pa.array([[asdict(one) for one in row] for row in rows], pa.list_(FAILURE_TYPE))


def add_failures(table: pa.Table, more: Sequence[Sequence[Failure]]) -> pa.Table:
    """Returns ``table`` with ``more`` failures of each row, behind those that it has."""
    if not any(more):
        return table
    old: list[list[dict[str, Any]]] = table["failures"].to_pylist()
    joined = [[*(before or []), *(asdict(one) for one in new)] for before, new in zip(old, more, strict=True)]
    return put(table, "failures", pa.array(joined, pa.list_(FAILURE_TYPE)))


def add_meter(table: pa.Table, name: str, values: Sequence[float] | np.ndarray) -> pa.Table:
    """Returns ``table`` with ``values`` [rows] added to the meter ``name``."""
    meter = f"meter_{name}"
    return put(table, meter, pc.add(table[meter], pa.array(values, pa.float64())))


def put(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Returns ``table`` with the column ``name`` set to ``values``: replaced in its position, or appended."""
    index = table.schema.get_field_index(name)
    return table.append_column(name, values) if index < 0 else table.set_column(index, name, values)
