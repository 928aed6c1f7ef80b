"""Writes the columns of a table for shared memory, and reads them again.

Small columns are one Arrow record batch. Columns whose buffers are already in the shared memory are described by an
`ArrayLayout` and not copied. Schemas are cached on both sides, since to serialize one takes longer than a small batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyarrow as pa

BIG_BYTES = 1 << 16
"""An array or column of at least this size is big, in bytes."""
_ALIGN_BYTES = 64
_MAX_CACHED_SCHEMAS = 8

ArrayLayout = tuple[int, list[bytes | tuple[int, int] | None], list[Any]]
"""An array without its type: its length, its buffers and the layouts of its children. A buffer is its bytes, or its
offset and size in the shared memory, or None."""


def aligned(size_bytes: int) -> int:
    """Rounds a size up to the alignment of a section of the shared memory; bytes."""
    return size_bytes + -size_bytes % _ALIGN_BYTES


def column_layout(column: pa.ChunkedArray, find_offset: Callable[[int], int | None]) -> ArrayLayout | None:
    """Returns the layout of a column whose large buffers are in the shared memory.

    Args:
        column: the column.
        find_offset: returns the offset of an address in the shared memory; None if the address is outside.

    Returns:
        None if the column has several chunks, is a slice, has a large buffer elsewhere, or is of another type than
        `SharedBuffer.empty` is used for.
    """
    return _array_layout(column.chunk(0), find_offset) if column.num_chunks == 1 else None


def _array_layout(array: pa.Array, find_offset: Callable[[int], int | None]) -> ArrayLayout | None:
    type_ = array.type
    if array.offset:
        return None
    if pa.types.is_struct(type_):
        children = [array.field(i) for i in range(type_.num_fields)]
    elif pa.types.is_list(type_) or pa.types.is_large_list(type_):
        children = [array.values]
    elif pa.types.is_primitive(type_):
        children = []
    else:
        return None
    buffers: list[bytes | tuple[int, int] | None] = []
    for buffer in array.buffers()[: type_.num_buffers]:
        offset = None if buffer is None else find_offset(buffer.address)
        if buffer is not None and offset is None and buffer.size >= BIG_BYTES:
            return None
        buffers.append(None if buffer is None else buffer.to_pybytes() if offset is None else (offset, buffer.size))
    child_layouts: list[ArrayLayout] = []
    for child in children:
        layout = _array_layout(child, find_offset)
        if layout is None:
            return None
        child_layouts.append(layout)
    return len(array), buffers, child_layouts


def build_array(type_: pa.DataType, layout: ArrayLayout, memory: pa.Buffer) -> pa.Array:
    """Builds the array that a layout describes.

    Args:
        type_: type of the array.
        layout: its layout.
        memory: the shared memory that holds its large buffers.
    """
    length, buffers, child_layouts = layout
    children = [build_array(type_.field(i).type, child, memory) for i, child in enumerate(child_layouts)]
    arrow_buffers = [
        None if buffer is None else pa.py_buffer(buffer) if isinstance(buffer, bytes) else memory.slice(*buffer)
        for buffer in buffers
    ]
    return pa.Array.from_buffers(type_, length, arrow_buffers, children=children)


def serialize_table(table: pa.Table) -> tuple[bytes | None, bytes]:
    """Serializes small columns.

    Returns:
        the serialized schema and one record batch; or None and an IPC stream, if one batch cannot hold the table: it
        has several batches, dictionaries or extension types.
    """
    batches = table.to_batches()
    _, schema_bytes, text = serialize_schema(table.schema)
    if len(batches) == 1 and "dictionary" not in text and "extension" not in text:
        return schema_bytes, batches[0].serialize().to_pybytes()
    stream = pa.BufferOutputStream()
    write_stream(table, stream)
    return None, stream.getvalue().to_pybytes()


def deserialize_table(schema_bytes: bytes | None, data: bytes) -> pa.Table:
    """Reads what `serialize_table` returned."""
    if schema_bytes is None:
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(data), deserialize_schema(schema_bytes))])


_recent_schemas: list[tuple[pa.Schema, bytes, str]] = []


def serialize_schema(schema: pa.Schema) -> tuple[pa.Schema, bytes, str]:
    """Returns an equal schema, its serialized form and its text; from a cache of the last few."""
    for entry in _recent_schemas:
        if entry[0].equals(schema, check_metadata=True):
            return entry
    new = (schema, schema.serialize().to_pybytes(), str(schema))
    _recent_schemas.append(new)
    del _recent_schemas[:-_MAX_CACHED_SCHEMAS]
    return new


@functools.lru_cache(_MAX_CACHED_SCHEMAS)
def deserialize_schema(schema_bytes: bytes) -> pa.Schema:
    """Reads a serialized schema."""
    return pa.ipc.read_schema(pa.py_buffer(schema_bytes))


def write_stream(table: pa.Table, sink: Any) -> None:
    """Writes a table to an Arrow sink, as an IPC stream."""
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def shared_columns(table: pa.Table, known: pa.Table | None) -> tuple[list[int], list[int]]:
    """Finds the columns of ``table`` that equal the column of the same name in ``known``.

    Returns:
        their indices in ``table``, and the corresponding indices in ``known``.
    """
    if known is None:
        return [], []
    indices = {name: i for i, name in enumerate(known.schema.names)}
    pairs = [(i, indices[name]) for i, name in enumerate(table.schema.names) if name in indices]
    columns, known_columns = table.columns, known.columns
    # takes no time for columns that are the same object
    pairs = [(i, j) for i, j in pairs if columns[i].equals(known_columns[j])]
    return [i for i, _ in pairs], [j for _, j in pairs]


def join_columns(tables: list[pa.Table], order: list[int]) -> pa.Table:
    """Returns one table with the columns of all ``tables``, in ``order``.

    It makes as few calls as possible: with cold CPU caches each one takes long.

    Args:
        tables: at least one; all of the same length.
        order: for each column of the result, its index among the columns of all ``tables``.
    """
    joined, *others = tables
    for table in others:
        for field, column in zip(table.schema, table.columns, strict=True):
            joined = joined.append_column(field, column)
    return joined.select(order)
