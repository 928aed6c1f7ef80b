"""Checks of rows that may keep columns of their stored rows, see `reuse.KeepColumnsStage`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.features import BoundFeature
from pipeline.core.media import MODALITIES
from pipeline.stages.rows import STORED_WINDOWS


def same_times(table: pa.Table, stored: pa.Table, index: pa.Array) -> np.ndarray:
    """Returns whether each row has the times of its stored row, or neither has any; bool [rows]."""
    same = np.ones(len(table), bool)
    for name in ("start_s", "end_s"):
        new, old = table[name], stored[name].take(index)
        equal = pc.or_(pc.equal(new, old).fill_null(False), pc.and_(pc.is_null(new), pc.is_null(old)))
        same &= equal.to_numpy(zero_copy_only=False) if isinstance(equal, pa.Array) else equal.to_numpy()
    return same


def covers_stored(table: pa.Table, stored: pa.Table, index: pa.Array) -> np.ndarray:
    """Returns whether each row starts with its stored row and ends with it or later, bool [rows].

    The last window of a sample ends with its longest media. A sound that was read then ended by that time, so it is the
    same sound in a window that ends later now.
    """
    starts = pc.equal(table["start_s"], stored["start_s"].take(index))
    ends = pc.greater_equal(table["end_s"], stored["end_s"].take(index))
    found: np.ndarray = pc.and_(starts, ends).fill_null(False).to_numpy()
    return found


def is_shared(table: pa.Table, row: int, failure: dict[str, Any]) -> bool:
    """Returns whether a failure of a row also belongs to other windows of the sample."""
    return bool(failure["stage"] == "probe" and table["windows"][row].as_py() > 1)


def has_media(table: pa.Table) -> np.ndarray:
    """Returns whether any media of a row's window can be read, bool [rows]."""
    columns = [table[name] for name in ("inline_text", *(f"{modality}_uri" for modality in MODALITIES))]
    found: np.ndarray = np.any([column.is_valid().to_numpy() for column in columns], axis=0)
    return found


def has_same_text(table: pa.Table) -> np.ndarray:
    """Returns whether a row has the same part of its text as a stored row with equal times, bool [rows].

    Without times, this holds if the text is cut into windows now, or cannot be read. If the row has all of it, so must
    the only stored row of the sample.
    """
    only = pc.and_(pc.equal(table["windows"], 1), pc.equal(table[STORED_WINDOWS], 1)).fill_null(False)
    uncut = pc.and_(pc.is_null(table["start_s"]), pc.is_null(table["text_from"]))
    readable = pc.or_(pc.is_valid(table["text_uri"]), pc.is_valid(table["inline_text"]))
    found: np.ndarray = ~pc.and_(uncut, readable).to_numpy() | only.to_numpy()
    return found


def has_feature(table: pa.Table, feature: BoundFeature) -> np.ndarray:
    """Returns whether any column of the feature is valid, bool [rows]."""
    found = np.zeros(len(table), bool)
    for field in feature.fields():
        found |= table[field.name].is_valid().to_numpy()
    return found
