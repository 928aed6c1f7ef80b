"""Converts numpy arrays of different shapes to Arrow columns and back, without a Python loop over values.

Between stages a tensor column is ``struct<data: large_list<T>, shape: list<int32>>``: each row has a shape of its own,
and Arrow slices the column like any other. Stored columns have the types of `pipeline.core.schema`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Allocate = Callable[[int, np.dtype[Any]], np.ndarray]
"""Returns an array [n] of a dtype, whose values are not set: ``np.empty``, or an allocator of shared memory."""


def pack(arrays: Sequence[np.ndarray | None], allocate: Allocate = np.empty) -> pa.StructArray:
    """Returns a tensor column with one row per array; None becomes null.

    Args:
        arrays: arrays of any shapes and of one dtype.
        allocate: allocates the values of the column.
    """
    present = [a for a in arrays if a is not None]
    dtype = present[0].dtype if present else np.dtype(np.uint8)
    assert all(a.dtype == dtype for a in present), "a tensor column holds one dtype"
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([0 if a is None else a.size for a in arrays], out=offsets[1:])
    values = allocate(offsets[-1], dtype)
    if present:
        np.concatenate([np.ascontiguousarray(a).reshape(-1) for a in present], out=values)
    data = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    shape = pa.array([[] if a is None else list(a.shape) for a in arrays], pa.list_(pa.int32()))
    absent = np.array([a is None for a in arrays], bool)
    return pa.StructArray.from_arrays([data, shape], names=["data", "shape"], mask=pa.array(absent))


def unpack(column: pa.ChunkedArray | pa.Array) -> list[np.ndarray | None]:
    """Returns the arrays of a column made by `pack`, as read-only views of Arrow's memory."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows: list[np.ndarray | None] = []
    for chunk in chunks:
        data, shapes = chunk.field("data"), chunk.field("shape").to_pylist()
        offsets = data.offsets.to_numpy()
        values = data.values.to_numpy(zero_copy_only=True)
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        for i, shape in enumerate(shapes):
            rows.append(values[offsets[i] : offsets[i + 1]].reshape(shape) if valid[i] else None)
    return rows


def list_column(arrays: Sequence[np.ndarray | None], value: pa.DataType) -> pa.ListArray:
    """Returns arrays [N] as a column ``list<value>``; None becomes null."""
    values = [np.zeros(0) if a is None else a for a in arrays]
    flat = np.concatenate(values) if values else np.zeros(0)
    return pa.ListArray.from_arrays(
        _offsets([len(a) for a in values]),
        pa.array(flat.astype(value.to_pandas_dtype(), copy=False)),
        mask=_nulls(arrays),
    )


def vector_list_column(arrays: Sequence[np.ndarray | None], value: pa.DataType, width: int) -> pa.ListArray:
    """Returns arrays [N, width] as a column ``list<fixed_size_list<value, width>>``; None becomes null."""
    values = [np.zeros((0, width), np.float32) if a is None else a for a in arrays]
    flat = _cast(values, width, np.dtype(value.to_pandas_dtype()))
    inner = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width)
    return pa.ListArray.from_arrays(_offsets([len(a) for a in values]), inner, mask=_nulls(arrays))


def adjacent(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Returns arrays of one shape that are contiguous in one buffer as one array [B, ...], without a copy; None if they
    are not contiguous."""
    first = arrays[0]
    owner, place, size = _owner(first), first.__array_interface__["data"][0], first.nbytes
    for number, one in enumerate(arrays):
        if one.shape != first.shape or one.dtype != first.dtype or not one.flags.c_contiguous:
            return None
        if one.__array_interface__["data"][0] != place + number * size or _owner(one) is not owner:
            return None
    return np.lib.stride_tricks.as_strided(
        first, (len(arrays), *first.shape), (size, *first.strides), writeable=first.flags.writeable
    )


def _owner(array: np.ndarray) -> Any:
    """Returns the object that owns the memory of ``array``.

    Adjacent buffers with different owners must not become one view, which keeps only one owner alive.
    """
    holder: Any = array
    while (base := getattr(holder, "base", None)) is not None:
        holder = base
    return holder


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns arrays [n, d] as one array [sum of n, d]. Copies only if they are not `adjacent`."""
    whole = adjacent(parts)
    return np.concatenate(parts) if whole is None else whole.reshape(-1, *whole.shape[2:])


def _cast(values: list[np.ndarray], width: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns arrays [n, width] as one array [sum of n, width] of ``dtype``."""
    torch = sys.modules.get("torch")
    values = [one for one in values if len(one)]
    if dtype != np.float16 or torch is None or all(one.dtype == dtype for one in values):
        return (joined(values) if values else np.zeros((0, width))).astype(dtype, copy=False)
    # torch takes a sixth of numpy's time for the same bits, and makes no intermediate copy
    flat = np.empty((sum(map(len, values)), width), np.float16)
    start = 0
    for one in values:
        torch.from_numpy(flat[start : start + len(one)]).copy_(torch.from_numpy(np.require(one, requirements="W")))
        start += len(one)
    return flat


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32))


def _nulls(arrays: Sequence[np.ndarray | None]) -> pa.Array:
    return pa.array(np.array([a is None for a in arrays], bool))


def is_list(kind: pa.DataType) -> bool:
    """Returns whether values of a type are lists, of any or of one length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def plain_value(scalar: pa.Scalar) -> Any:
    """Returns a stored value as a Python value for JSON: lists in full, times as text in full resolution."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if is_list(kind):
        inner = kind.value_type
        while is_list(inner):
            inner = inner.value_type
        if pa.types.is_primitive(inner) and not pa.types.is_temporal(inner):
            return scalar.values.to_pylist()
        return [plain_value(one) for one in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: plain_value(scalar[i]) for i in range(kind.num_fields)}
    if pa.types.is_temporal(kind):
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:  # a type that has no text form
            return str(scalar.value)
    return scalar.as_py()
