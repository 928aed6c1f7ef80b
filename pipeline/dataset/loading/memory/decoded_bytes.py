"""Estimates from the footer of a Parquet file how many bytes its row groups take when they are decoded.

For values of a fixed width it is an upper bound, with one exception: a null vector inside a list, which has one value
in the file and takes a whole vector in memory. A footer does not count such nulls. For strings it is the number of
bytes without compression; a string of a dictionary may take more, since each row has its own copy in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet import leaf_numbers

MOST_STORED = 2
"""If a decoded group has more than this many times the rows that are read, these are copied, and only they are kept."""
_ORDER_BYTES, _POSITION_BYTES = 8, 8
"""Bytes of a row in the order of an epoch, and in the positions of the rows that are read."""
_BUFFER_BYTES = 64
"""Arrow allocates buffers in multiples of this."""
_ROW_BYTES = 1
"""Bytes per row and column for which rows are not null (`StoredColumn.valid`)."""
_OFFSET_BYTES = 8
"""Bytes per row of a list column for where its values begin (`StoredColumn.offsets`)."""
_MAX_BYTES = 1 << 60
"""Larger estimates are cut, so that a footer with impossible numbers does not overflow."""


@dataclass(frozen=True)
class _Part:
    """Bytes of a part of a column: a sum of the footer's numbers, each times a factor."""

    leaf: int
    """Number of the column in the Parquet schema."""
    rows: float
    """Bytes per row of the group."""
    values: float
    """Bytes per value of the column; the footer counts nulls and empty lists, too."""
    stored: float
    """Bytes per byte without compression."""
    fixed: int


class DecodedBytes:
    """Estimates the bytes of the row groups of one file.

    Args:
        schema: the columns of the file, as Parquet.
        found: the same columns, as Arrow.
        wanted: the columns that are read, with the types to which they are cast.

    Raises:
        ValueError: ``found`` does not fit ``schema``.
    """

    def __init__(self, schema: pq.ParquetSchema, found: pa.Schema, wanted: pa.Schema) -> None:
        self._parts: list[_Part] = []
        for field in wanted:
            kind, leaves = found.field(field.name).type, leaf_numbers(schema, [field.name])
            if len(list(_leaf_parts(kind, 1, 0))) != len(leaves):
                raise ValueError("its Arrow schema does not fit its columns")
            self._parts += _column(leaves, kind)
            if kind != field.type:  # a cast holds both
                self._parts += _column(leaves, field.type)

    def of(self, group: pq.RowGroupMetaData) -> int:
        """Returns the bytes of a row group."""
        total = 0.0
        for part in self._parts:
            column = group.column(part.leaf)
            values, stored = max(0, column.num_values), max(0, column.total_uncompressed_size)
            total += part.rows * group.num_rows + part.values * values + part.stored * stored + part.fixed
        return int(min(total, _MAX_BYTES))


def group_bytes(
    decoded: np.ndarray, stored: np.ndarray, sizes: np.ndarray, label_bytes: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `Index.bytes` and `Index.decoding_bytes`.

    Args:
        decoded: [groups] bytes of the columns of all stored rows.
        stored: [groups] rows in the group.
        sizes: [groups] rows that are read.
        label_bytes: bytes of the labels of a row, which are added to a copy of the rows; None: there are no labels.
    """
    is_copied = (stored > MOST_STORED * sizes) | (label_bytes is not None)
    share = sizes / np.maximum(stored, 1)
    copied = np.where(is_copied, decoded * share + sizes * (label_bytes or 0), 0)
    numbers = sizes * _ORDER_BYTES + np.where(sizes < stored, sizes * _POSITION_BYTES, 0)
    kept = np.where(is_copied, copied, decoded) + numbers
    return np.ceil(kept).astype(np.int64), np.ceil(decoded + copied + numbers).astype(np.int64)


def row_bytes(table: pa.Table) -> float:
    """Returns the bytes that a row of ``table`` takes on average in a decoded group."""
    lists = sum(_is_variable(kind) for kind in table.schema.types)
    return float(table.nbytes / max(1, len(table)) + _ROW_BYTES * table.num_columns + _OFFSET_BYTES * lists)


def _column(leaves: Sequence[int], kind: pa.DataType) -> list[_Part]:
    """Returns the parts of one column, whose columns in Parquet are ``leaves``."""
    parts = [_Part(leaf, *one) for leaf, one in zip(leaves, _leaf_parts(kind, 1, 0), strict=False)]
    extra = _ROW_BYTES + (_OFFSET_BYTES if _is_variable(kind) else 0)
    return [*parts, _Part(leaves[0], extra, 0, 0, 2 * _BUFFER_BYTES)] if leaves else parts


def _leaf_parts(kind: pa.DataType, rows: float, values: float) -> Iterator[tuple[float, float, float, int]]:
    """Yields for each leaf below ``kind`` the factors of a `_Part`.

    An array of ``kind`` has at most ``rows`` slots for each row of the group, and ``values`` for each value of a leaf.
    """
    if pa.types.is_fixed_size_list(kind):
        own, inner = 0.0, _leaf_parts(kind.value_type, rows * kind.list_size, values * kind.list_size)
    elif pa.types.is_struct(kind):
        own, inner = (
            0.0,
            (part for i in range(kind.num_fields) for part in _leaf_parts(kind.field(i).type, rows, values)),
        )
    elif pa.types.is_map(kind):
        own = 4.0
        inner = (part for one in (kind.key_type, kind.item_type) for part in _leaf_parts(one, 0, 1 / _length(one)))
    elif _is_variable(kind):
        own = 4.0 if pa.types.is_list(kind) else 8.0
        inner = _leaf_parts(kind.value_type, 0, 1 / _length(kind.value_type))
    else:
        width, stored = _width(kind)
        yield (width + 1 / 8) * rows, (width + 1 / 8) * values, stored, 3 * _BUFFER_BYTES
        return
    own += 1 / 8  # one bit says whether it is null
    for more_rows, more_values, stored, fixed in inner:
        yield own * rows + more_rows, own * values + more_values, stored, fixed + 2 * _BUFFER_BYTES


def _width(kind: pa.DataType) -> tuple[float, float]:
    """Returns the bytes in memory of a value, and per byte in the file."""
    if pa.types.is_dictionary(kind):
        return kind.index_type.bit_width / 8, 1
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        return kind.bit_width / 8, 0
    if pa.types.is_null(kind):
        return 0, 0
    is_short = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return (4 if is_short else 16), 1


def _length(kind: pa.DataType) -> int:
    """Returns how many values in the file belong to one value of ``kind`` that is neither null nor empty, at least."""
    if pa.types.is_fixed_size_list(kind):
        return max(1, int(kind.list_size)) * _length(kind.value_type)
    return 1


def _is_variable(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind)
    )
