"""Gathers rows of several decoded row groups into one record batch.

Arrow's ``take`` of a list column copies value by value, with an index of eight bytes for each. Here rows of numbers, of
vectors and of lists of these are copied as bytes, once, straight into the batch. Other types use ``take``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.arrow_memory import empty

_MAX_UNITS = (1 << 31) - 1
"""Arrow counts the values of a list column with 32 bits."""


@dataclass(frozen=True)
class StoredColumn:
    """A column of a decoded row group, from which rows are gathered. A *unit* is a number or a vector."""

    array: pa.Array
    units: np.ndarray | None = None
    """The column's units as void items; None: rows are taken by Arrow."""
    offsets: np.ndarray | None = None
    """The first unit of each row, then the number of units; None: each row is a unit."""
    uniform: int | None = None
    """Units in each row that has any; None: the numbers differ."""
    is_full: bool = False
    """Whether each row has ``uniform`` units."""
    valid: np.ndarray | None = None
    """Which rows are not null; None: all."""

    @classmethod
    def of(cls, array: pa.Array) -> StoredColumn:
        """Returns the column that ``array`` holds."""
        valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        if _unit_bytes(array.type):
            return cls(array, _units(array), valid=valid)
        if not _is_list(array.type) or not _unit_bytes(array.type.value_type):
            return cls(array)
        offsets = array.offsets.to_numpy().astype(np.int64)
        first = int(offsets[0])
        child = array.values.slice(first, int(offsets[-1]) - first)
        units = None if child.null_count else _units(child)
        if units is None or (valid is not None and np.any(np.diff(offsets)[~valid])):
            return cls(array)
        lengths = np.diff(offsets)
        most = int(lengths.max(initial=0))
        is_full = bool(most) and bool((lengths == most).all())
        uniform = most if is_full or (most and ((lengths == most) | (lengths == 0)).all()) else None
        return cls(array, units, offsets - first, uniform, is_full, valid)

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        own = sum(array.nbytes for array in (self.offsets, self.valid) if array is not None)
        return int(self.array.nbytes) + own


Part = tuple[StoredColumn, np.ndarray]
"""A column, and the numbers of the rows that are gathered from it."""


def gather(kind: pa.DataType, parts: Sequence[Part]) -> pa.Array:
    """Returns the rows of all ``parts`` as one array of type ``kind``, whose memory may be written.

    Raises:
        ConfigError: the lists of a column have too many values together.
    """
    units = [column.units for column, _ in parts if column.units is not None]
    if len(units) < len(parts):
        return pa.concat_arrays([column.array.take(pa.array(rows)) for column, rows in parts])
    count = sum(len(rows) for _, rows in parts)
    validity = _validity(parts)
    if not _is_list(kind):
        found = empty((count,), units[0].dtype)
        _fill(found, [(one, rows) for one, (_, rows) in zip(units, parts, strict=True)])
        return _of_units(kind, count, validity, found)
    offsets = _offsets(parts, count)
    if offsets[-1] > _MAX_UNITS:
        raise ConfigError("batch_size", f"{count} rows have {offsets[-1]} values in one column", "a smaller batch")
    found = empty((int(offsets[-1]),), units[0].dtype)
    start = 0
    for column, rows in parts:
        start += _copy_lists(found[start:], column, rows)
    child = _of_units(kind.value_type, len(found), None, found)
    stored = offsets if pa.types.is_large_list(kind) else offsets.astype(np.int32)
    return pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(stored)], children=[child])


def _offsets(parts: Sequence[Part], count: int) -> np.ndarray:
    """Returns the first unit of each row in the batch, then the number of units."""
    length = parts[0][0].uniform
    if length and all(column.is_full and column.uniform == length for column, _ in parts):
        return np.arange(count + 1) * length
    found = np.zeros(count + 1, np.int64)
    np.cumsum(np.concatenate([_lengths(column, rows) for column, rows in parts]), out=found[1:])
    return found


def _copy_lists(found: np.ndarray, column: StoredColumn, rows: np.ndarray) -> int:
    """Copies the lists of ``rows`` to the beginning of ``found``. Returns the number of units."""
    assert column.units is not None
    assert column.offsets is not None
    if column.uniform is not None:
        numbers = rows if column.is_full else column.offsets[rows[_lengths(column, rows) > 0]] // column.uniform
        kind, count = f"V{column.uniform * column.units.dtype.itemsize}", len(numbers) * column.uniform
        column.units.view(kind).take(numbers, out=found[:count].view(kind), mode="clip")
        return count
    starts, lengths = column.offsets[rows], _lengths(column, rows)
    count = int(lengths.sum())
    numbers = np.arange(count) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    column.units.take(numbers, out=found[:count], mode="clip")
    return count


def _fill(found: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copies the given items of several arrays one after the other into ``found``."""
    start = 0
    for values, rows in parts:
        values.take(rows, out=found[start : start + len(rows)], mode="clip")  # "raise" would copy twice
        start += len(rows)


def _lengths(column: StoredColumn, rows: np.ndarray) -> np.ndarray:
    assert column.offsets is not None
    found: np.ndarray = column.offsets[rows + 1] - column.offsets[rows]
    return found


def _validity(parts: Sequence[Part]) -> pa.Buffer | None:
    """Returns which rows are not null, as Arrow's bits; None: all."""
    if all(column.valid is None for column, _ in parts):
        return None
    found = [np.ones(len(rows), bool) if column.valid is None else column.valid[rows] for column, rows in parts]
    return pa.py_buffer(np.packbits(np.concatenate(found), bitorder="little"))


def _of_units(kind: pa.DataType, count: int, validity: pa.Buffer | None, units: np.ndarray) -> pa.Array:
    """Returns an array of numbers or vectors in the memory of ``units``."""
    data = pa.py_buffer(units.view(np.uint8))
    if not pa.types.is_fixed_size_list(kind):
        return pa.Array.from_buffers(kind, count, [validity, data])
    child = pa.Array.from_buffers(kind.value_type, count * kind.list_size, [None, data])
    return pa.Array.from_buffers(kind, count, [validity], children=[child])


def _units(array: pa.Array) -> np.ndarray | None:
    """Returns the numbers or vectors of ``array`` as void items; None if a vector has a null in it."""
    size, width = len(array), _unit_bytes(array.type)
    if pa.types.is_fixed_size_list(array.type):
        start, length = array.offset * array.type.list_size, size * array.type.list_size
        array = array.values.slice(start, length)
        if array.null_count:
            return None
    if not size:
        return np.empty(0, f"V{width}")
    item = width * size // len(array)
    return np.frombuffer(array.buffers()[1], f"V{width}", size, array.offset * item)


def _unit_bytes(kind: pa.DataType) -> int:
    """Returns the bytes of a number or vector; 0: another type."""
    if pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        return kind.list_size * _unit_bytes(inner) if pa.types.is_primitive(inner) else 0
    if not pa.types.is_primitive(kind) or pa.types.is_boolean(kind):
        return 0
    return int(kind.bit_width) // 8


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
