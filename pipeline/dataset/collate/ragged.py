"""The values of a column of a batch, one row after the other, and how they are padded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.arrow_memory import empty


@dataclass(frozen=True)
class Ragged:
    """The values of all rows. A *value* is a number, or a vector."""

    values: np.ndarray
    """[values] or [values, width]."""
    offsets: np.ndarray
    """[rows + 1], int64: the first value of each row, then the number of values."""
    valid: np.ndarray
    """[rows], bool: False for nulls, which have no values."""

    @classmethod
    def of_array(cls, array: pa.Array, width: int | None) -> Ragged:
        """Returns the values of a list column, without a copy if possible.

        Args:
            array: lists of numbers, or of vectors.
            width: numbers in a vector; None: the values are numbers.
        """
        valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else np.ones(len(array), bool)
        if pa.types.is_fixed_size_list(array.type):
            child, start = array.flatten(), 0  # leaves out the values that are allocated for nulls
            offsets = np.concatenate([[0], np.cumsum(valid, dtype=np.int64)]) * array.type.list_size
        else:
            child, offsets = array.values, _offsets(array)
            if start := int(offsets[0]):
                offsets -= start
        found = cls(_values(child, start, int(offsets[-1]), width), offsets, valid)
        return found._without_values_of_nulls() if array.null_count else found

    @classmethod
    def of_rows(cls, rows: Sequence[Any], dtype: str, width: int | None) -> Ragged:
        """Returns the values of single rows: tensors, or None for null.

        Args:
            rows: one for each row of the batch.
            dtype: numpy's name of the dtype.
            width: numbers in a vector; None: the values are numbers.
        """
        arrays = [np.zeros(0 if width is None else (0, width), dtype)]
        arrays += [row.numpy() for row in rows if row is not None]
        lengths = [0 if row is None else len(row) for row in rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(np.concatenate(arrays), offsets, np.array([row is not None for row in rows], bool))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.valid)

    @property
    def lengths(self) -> np.ndarray:
        """[rows]: the number of values in each row."""
        found: np.ndarray = self.offsets[1:] - self.offsets[:-1]
        return found

    def cut(self, most: int) -> Ragged:
        """Returns the first ``most`` values of each row."""
        lengths = self.lengths
        if lengths.max(initial=0) <= most:
            return self
        positions = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, most))])
        return Ragged(self.values[positions < most], offsets, self.valid)

    def _without_values_of_nulls(self) -> Ragged:
        lengths = self.lengths
        if not lengths[~self.valid].any():
            return self
        kept = np.repeat(self.valid, lengths)
        return Ragged(self.values[kept], np.concatenate([[0], np.cumsum(lengths * self.valid)]), self.valid)


def padded(values: np.ndarray, is_value: np.ndarray, fill: int | np.integer = 0) -> np.ndarray:
    """Returns rows [rows, length, ...] that are padded with ``fill``: a view of ``values`` if no row is shorter.

    Args:
        values: [values, ...], of all rows.
        is_value: [rows, length] bool, of `mask`.
        fill: a number.
    """
    shape = (*is_value.shape, *values.shape[1:])
    if len(values) == is_value.size:
        return values.reshape(shape)
    if not len(values):
        return np.full(shape, fill, values.dtype)
    found = empty(shape, values.dtype)
    item = f"V{values.dtype.itemsize * math.prod(values.shape[1:])}"
    if found.size:  # copies each value as bytes
        items = found.reshape(len(found), -1).view(item).reshape(is_value.shape)
        items[is_value] = np.ascontiguousarray(values).reshape(len(values), -1).view(item)[:, 0]
        np.copyto(items, np.full(shape[2:], fill, values.dtype).reshape(-1).view(item), where=~is_value)
    return found


def mask(lengths: np.ndarray, length: int | None = None) -> np.ndarray:
    """Returns [rows, length] bool: True for values that are not padding.

    Args:
        lengths: [rows]: values in each row.
        length: of the result, not below that of the longest row; None: that of the longest row.
    """
    longest = int(lengths.max(initial=0)) if length is None else length
    kind = np.min_scalar_type(longest)  # small integers are compared faster
    found: np.ndarray = np.arange(longest, dtype=kind) < lengths.astype(kind)[:, None]
    return found


def writable(array: np.ndarray) -> np.ndarray:
    """Returns ``array``, or a copy if its memory is read-only, because torch has no read-only tensors."""
    return array if array.flags.writeable else array.copy()


def _offsets(array: pa.Array) -> np.ndarray:
    """Returns [rows + 1], int64: where the rows of a list array begin, then where the last one ends."""
    if not len(array):
        return np.zeros(1, np.int64)
    kind = np.dtype(np.int64 if pa.types.is_large_list(array.type) else np.int32)
    found = np.frombuffer(array.buffers()[1], kind, len(array) + 1, array.offset * kind.itemsize)
    return found.astype(np.int64)


def _values(array: pa.Array, start: int, count: int, width: int | None) -> np.ndarray:
    """Returns some values of an array of numbers or vectors, whose memory may be writable.

    pyarrow's own conversions take longer than these few calls, and return memory that is read-only.

    Raises ``pa.ArrowInvalid`` for nulls.
    """
    numbers, offset, length = array, start, count
    if width is not None:
        numbers, offset, length = array.values, (array.offset + start) * width, count * width
    if not length or numbers.null_count or not _is_plain(numbers.type):
        found: np.ndarray = numbers.slice(offset, length).to_numpy(zero_copy_only=True)
    else:
        kind = np.dtype(numbers.type.to_pandas_dtype())
        found = np.frombuffer(numbers.buffers()[1], kind, length, (numbers.offset + offset) * kind.itemsize)
    return found if width is None else found.reshape(-1, width)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether numbers of this type lie in memory as numpy's do."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
