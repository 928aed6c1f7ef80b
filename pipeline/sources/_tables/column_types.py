"""Arrow types of a manifest's columns: which of them Parquet can store, and how many bytes their values take."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import ConfigError, describe

MAX_PAGE_BYTES = 256 << 20
"""Maximum size of a page of Parquet, decompressed, unless longer values are allowed."""


def plain(kind: pa.DataType) -> pa.DataType:
    """Returns ``kind``; for a dictionary the type of its values."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_string(kind: pa.DataType) -> bool:
    """Returns whether ``kind`` is one of Arrow's three string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Returns ``kind`` with string and binary views replaced by strings and bytes, also nested ones: few kernels of
    Arrow and few readers of Parquet support views.

    List views are kept with their contents: pyarrow 26 loses values when it casts them.
    """
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    inner = [stored_field(kind.field(i)) for i in range(kind.num_fields)]
    if all(field.type == kind.field(i).type for i, field in enumerate(inner)):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_map(kind):
        return pa.map_(stored_type(kind.key_type), stored_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(inner[0])
    return pa.list_(inner[0]) if pa.types.is_list(kind) else kind


def has_list_view(kind: pa.DataType) -> bool:
    """Returns whether ``kind`` is a list view or contains one."""
    is_one = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_one or any(has_list_view(kind.field(i).type) for i in range(kind.num_fields))


def _has_view(kind: pa.DataType) -> bool:
    """Returns whether ``kind`` is a string or binary view, or contains one."""
    is_one = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return is_one or any(_has_view(kind.field(i).type) for i in range(kind.num_fields))


def stored_field(field: pa.Field) -> pa.Field:
    """Returns ``field`` with its `stored_type`."""
    return field.with_type(stored_type(field.type))


def check_storable(kind: pa.DataType, name: str, where: str) -> None:
    """Checks that a passthrough column can be copied to a shard.

    Raises:
        ConfigError: Arrow cannot process the type or Parquet cannot store it; one null takes more bytes than a page may
            have.
    """
    if width(kind) > MAX_PAGE_BYTES:
        raise ConfigError(
            where, f"column {name!r} holds {kind}: each null takes {width(kind)} bytes", f"at most {MAX_PAGE_BYTES}"
        )
    if _has_view(kind):
        raise ConfigError(where, f"column {name!r} holds {kind}, which cannot be cast", "lists of plain strings")
    try:
        empty = pa.table({name: pa.nulls(1, kind)}).take([0])
        pq.write_table(empty, pa.BufferOutputStream())
    except (pa.ArrowException, NotImplementedError) as error:
        raise ConfigError(
            where, f"column {name!r} holds {kind} ({describe(error)})", "a type that Parquet stores"
        ) from error


def lengths(array: pa.Array) -> pa.Array | None:
    """Returns the bytes of each string or binary value, also of a dictionary's; None for other types."""
    if pa.types.is_dictionary(array.type):
        of_values = lengths(array.dictionary)
        return None if of_values is None else of_values.take(array.indices)
    variable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return pc.binary_length(array) if any(check(array.type) for check in variable) else None


def width(kind: pa.DataType) -> int:
    """Returns the bytes that a null takes: lists and binary values of a fixed size have room for their values."""
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * width(kind.value_type)
    return sum(width(kind.field(i).type) for i in range(kind.num_fields)) or 8
