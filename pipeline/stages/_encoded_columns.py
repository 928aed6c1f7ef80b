"""Builds the stored columns of a feature from what its encoder returned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.config.features import BoundFeature
from pipeline.core.arrow import list_column, vector_list_column
from pipeline.core.errors import SampleError
from pipeline.encoders.base import Encoded
from pipeline.heads.base import Head


def stored_columns(
    feature: BoundFeature, head: Head | None, rows: list[Encoded | None], stores_tokens: list[bool]
) -> tuple[list[pa.Array], dict[int, SampleError]]:
    """Builds the columns of ``feature.fields()``.

    Args:
        feature: the feature.
        head: projects into the embedding space; needed if the feature has an embedding.
        rows: what the encoder returned for each row; None: nothing.
        stores_tokens: whether a row stores its tokens.

    Returns:
        the columns, and the errors of rows whose values cannot be stored; all columns of such a row are null.
    """
    errors: dict[int, SampleError] = {}
    values: dict[str, list[np.ndarray | None]] = {}
    encoded = [i for i, row in enumerate(rows) if row is not None]
    if feature.emits("embedding"):
        projected = np.zeros((0, feature.dim or 0))
        if encoded:
            assert head is not None
            projected = head.project([row for row in rows if row is not None])
        values["embedding"] = [None] * len(rows)
        for i, vector in zip(encoded, projected, strict=True):
            values["embedding"][i] = vector
    for part in ("tokens", "prefix_tokens", "token_ids"):
        if feature.emits(part):
            values[part] = [
                None if row is None or not stores_tokens[i] else getattr(row, part) for i, row in enumerate(rows)
            ]
    for part, arrays in values.items():
        dtype = np.dtype(feature.config.store.embedding if part == "embedding" else feature.token_dtype)
        if part == "token_ids" or (part == "embedding" and unstorable(projected, dtype) is None):
            continue
        for i, array in enumerate(arrays):
            if array is not None and i not in errors and array.dtype != np.float16:  # float16 is finite
                error = unstorable(array, dtype)
                if error is not None:
                    errors[i] = error
    columns = []
    for field in feature.fields():
        part = field.name.removeprefix(f"{feature.name}_")
        if part in values:
            arrays = [None if i in errors else array for i, array in enumerate(values[part])]
            if part in ("tokens", "prefix_tokens"):
                token_type = field.type.value_type
                columns.append(vector_list_column(arrays, token_type.value_type, token_type.list_size))
            else:
                columns.append(list_column(arrays, field.type.value_type))
        else:
            name = "grid" if part == "grid" else "times_s"
            kept = [None if i in errors or not stores_tokens[i] else row for i, row in enumerate(rows)]
            columns.append(list_column(_attribute_arrays(kept, name), field.type.value_type))
    return columns, errors


def unstorable(values: np.ndarray, dtype: np.dtype) -> SampleError | None:
    """Returns why ``values`` cannot be stored as ``dtype``: not finite, or too large for it; None if they can."""
    limit = float(np.finfo(np.float16 if dtype == np.float16 else np.float32).max)
    if not values.size or (float(values.min()) >= -limit and float(values.max()) <= limit):  # false if any is NaN
        return None
    if not np.isfinite(values).all():
        return SampleError(
            "nan", f"the encoder returned {int((~np.isfinite(values)).sum())} values that are not finite"
        )
    if dtype == np.float16 and values.size:
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            return SampleError("overflow", f"{largest:.6g} does not fit float16: store it as float32")
    return None


def _attribute_arrays(rows: Sequence[Encoded | None], name: str) -> list[np.ndarray | None]:
    """Returns one attribute of each row as an array."""
    values = [None if row is None else getattr(row, name) for row in rows]
    return [None if value is None else np.asarray(value) for value in values]
