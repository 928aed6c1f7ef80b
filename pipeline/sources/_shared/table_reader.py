"""What all readers of manifests share: slices of a table with the places of their rows, limits, types of columns.

A manifest may come from somebody else, and a small file may hold much. So it is read in slices, and within `Limits`: of
one value, and of all together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import ConfigError, describe

MAX_PAGE_BYTES = 256 << 20
"""Of a page of Parquet, decompressed, where no longer value is allowed."""
TOTAL_BYTES = 1 << 30
"""Of all values together, unless the config says."""
_UNREADABLE = (pa.ArrowException, ValueError, OverflowError, TypeError)
"""What pyarrow raises for a value that no Python object can hold: a string that is not UTF-8, a year of 40000."""


@dataclass(frozen=True)
class Limits:
    """Of what a manifest may make of its bytes."""

    cell_bytes: int
    """Of one value, and of one line of JSON."""
    bytes: int | None
    """Of all values that are read; of text, of the whole file once it is decompressed. None: 1 GiB, of Parquet at least
    a hundred times the file's own bytes."""


class BadRow(NamedTuple):
    """A row that could not be parsed, so that it is in no table."""

    place: str
    reason: str
    """What is wrong with it, as the rest of a sentence that begins with its place. Without secrets."""


class Slice(NamedTuple):
    """Consecutive rows of a manifest."""

    table: pa.Table
    place: Callable[[int], str]
    """The place of a row of ``table``, by its number from 0: ``row 7``, ``line 7``, ``row 7 of part-00001.parquet``.
    Places are counted from 1."""
    bad: Sequence[BadRow] = ()
    """Rows that are not in ``table``."""


class TableReader(Protocol):
    """A manifest's table, whatever its format."""

    @property
    def schema(self) -> pa.Schema:
        """All columns; of those that are not wanted only the name counts. Views have the types that they are stored
        as (`stored_type`)."""
        ...

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """The columns, at most ``rows`` rows a slice. Raises ``ConfigError`` for a file that turns out broken."""
        ...

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """Why ``column`` is not in ``schema`` (what was found, what to do), where the reader can see it."""
        ...


def too_large(where: str, found: str, key: str) -> ConfigError:
    """The error for what goes beyond a limit, with the key of the config that sets it. ``where``: of the manifest's
    path."""
    return ConfigError(where, found, f"give {where.rpartition('.')[0]}.{key} if the manifest is to be trusted")


def values(table: pa.Table, name: str, where: str) -> tuple[list[Any], dict[int, str]]:
    """The values of a column, and why some of them cannot be read: number of the row -> reason. Those are None."""
    column = table[name]
    try:
        return column.to_pylist(), {}
    except ImportError as error:  # of a time zone's data: it is the machine that lacks them
        raise ConfigError(where, f"column {name!r} cannot be read ({describe(error)})", "install it") from error
    except _UNREADABLE:
        found: list[Any] = []
        unreadable: dict[int, str] = {}
        for i, value in enumerate(column):
            try:
                found.append(value.as_py())
            except _UNREADABLE as error:
                found.append(None)
                unreadable[i] = f"has in column {name!r} a value that cannot be read ({describe(error)})"
        return found, unreadable


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's are those that it points to."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """``kind`` without views of strings and of bytes, also nested ones: few kernels of Arrow, and few readers of
    Parquet, have them. Views of lists stay, and what is in them: pyarrow 26 loses values when it casts those."""
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
    """Whether ``kind`` is a view of lists, or holds one."""
    is_one = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_one or any(has_list_view(kind.field(i).type) for i in range(kind.num_fields))


def _has_view(kind: pa.DataType) -> bool:
    """Whether ``kind`` holds a view of strings or of bytes."""
    is_one = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return is_one or any(_has_view(kind.field(i).type) for i in range(kind.num_fields))


def stored_field(field: pa.Field) -> pa.Field:
    """``field`` with the type that it is stored as."""
    return field.with_type(stored_type(field.type))


def check_storable(kind: pa.DataType, name: str, where: str) -> None:
    """Raises ``ConfigError`` for a type that Parquet or Arrow's own kernels cannot carry from a manifest to a shard, or
    whose every null takes more than a page may."""
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
    """Bytes of each value of strings or binary values, of those that a dictionary names too; None for other types."""
    if pa.types.is_dictionary(array.type):
        of_values = lengths(array.dictionary)
        return None if of_values is None else of_values.take(array.indices)
    variable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return pc.binary_length(array) if any(check(array.type) for check in variable) else None


def width(kind: pa.DataType) -> int:
    """Bytes that a null of a type takes: lists and binary values of a fixed size have room for what they hold."""
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * width(kind.value_type)
    return sum(width(kind.field(i).type) for i in range(kind.num_fields)) or 8
