"""Rows as they flow between the stages: their columns, their failures, their meters."""

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

FAILURE = pa.struct(
    [pa.field(name, pa.string()) for name in ("feature", "uri", "stage", "kind", "message")],
)

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
        pa.field("carry_file", pa.int32()),
        pa.field("carry_position", pa.int64()),
        pa.field("final", pa.bool_()),
        pa.field("cells", pa.int32()),
        pa.field("failures", pa.list_(FAILURE)),
        *(pa.field(f"meter_{name}", pa.float64()) for name in METERS),
    ]
)
"""Columns of a row after the cut; passthrough columns follow, then what tokenizers and encoders add.

``<modality>_uri`` is the file that holds the modality in this window, or null. ``text_from`` and
``text_to`` bound a token window in characters. ``windows`` counts the windows that the sample was cut into.
``final`` marks a sample's last row of this run, which also says how many rows were ``promised``. ``replaces``: the
dataset holds the sample already; ``attempts``: how often a feature of this window has failed before, null where nothing
of the sample is tried again. ``carry_file`` and ``carry_position`` say which row of another version has the columns of
features that did not change; or which row of this version this one replaces after a failure. ``cells`` counts the
features that this row should have. A row of window -1 is none: it accounts for a sample of which nothing was left to
do.
"""


@dataclass(frozen=True)
class Failure:
    """Why a feature of a row could not be produced. ``feature`` None: no feature could be named."""

    feature: str | None
    uri: str | None
    stage: StageName
    kind: str
    message: str


def failure(feature: str | None, uri: str | None, stage: StageName, error: Exception) -> Failure:
    """The one place where an exception becomes data."""
    if isinstance(error, SampleError):
        return Failure(feature, uri, stage, error.kind, error.message)
    return Failure(feature, uri, stage, "memory" if out_of_memory(error) else "internal", describe(error))


def failure_column(rows: Sequence[Sequence[Failure]]) -> pa.Array:
    return pa.array([[asdict(one) for one in row] for row in rows], pa.list_(FAILURE))


def add_failures(table: pa.Table, more: Sequence[Sequence[Failure]]) -> pa.Table:
    """``table`` with further failures behind those that each row has."""
    if not any(more):
        return table
    old: list[list[dict[str, Any]]] = table["failures"].to_pylist()
    joined = [[*(before or []), *(asdict(one) for one in new)] for before, new in zip(old, more, strict=True)]
    return put(table, "failures", pa.array(joined, pa.list_(FAILURE)))


def add_meter(table: pa.Table, name: str, values: Sequence[float] | np.ndarray) -> pa.Table:
    meter = f"meter_{name}"
    return put(table, meter, pc.add(table[meter], pa.array(values, pa.float64())))


def put(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """``table`` with column ``name`` set."""
    index = table.schema.get_field_index(name)
    return table.append_column(name, values) if index < 0 else table.set_column(index, name, values)
