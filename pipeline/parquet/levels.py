"""Counts the null vectors of fixed length in a Parquet page.

Such a null takes some bits in the file, and the whole length of the vector in Arrow. Nulls are counted by their
definition levels (https://github.com/apache/parquet-format/blob/master/Encodings.md, RLE/bit-packing hybrid).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet.pages import DATA_V2, Page, decompressed

_STREAMED = ("ZSTD", "GZIP", "BROTLI")
"""Codecs that can decompress the beginning of a page only."""
_RLE = 3
"""Encoding of levels that is supported."""
_LENGTH = struct.Struct("<I")
_PACKED_BYTES = 1 << 16
"""Bytes per bit of a level that are unpacked together."""


@dataclass(frozen=True)
class Padded:
    """Nulls whose definition level is in ``[least, most]``. Each takes ``bytes`` bytes."""

    least: int
    most: int
    bytes: int


@dataclass(frozen=True)
class Leaf:
    """Layout in Arrow of a column of a Parquet file."""

    width: int
    """Bytes of a value; for strings, of an offset or a view."""
    padded: tuple[Padded, ...]
    """Its nested vectors of fixed length, the outermost first."""
    lists: int = 0
    """Number of nested lists around a value. Each list level has at most one offset per value."""


def leaf_numbers(schema: pq.ParquetSchema, columns: Sequence[str]) -> list[int]:
    """Returns the numbers of the columns of a Parquet file that store the Arrow columns ``columns``."""
    paths = [f"{schema.column(number).path}." for number in range(len(schema))]
    return [number for number, path in enumerate(paths) if any(path.startswith(f"{name}.") for name in columns)]


def leaves(schema: pq.ParquetSchema) -> list[Leaf]:
    """Returns the columns of a file, in the order of ``schema``.

    Raises:
        ValueError: the columns of the Arrow schema differ from those of the Parquet schema.
    """
    found: list[Leaf] = []
    levels: list[int] = []
    for field in schema.to_arrow_schema():
        for leaf, level in _leaves(field, 0, 0, []):
            found.append(leaf)
            levels.append(level)
    if levels != [schema.column(i).max_definition_level for i in range(len(schema))]:
        raise ValueError("its Arrow schema does not fit its columns")
    return found


def _leaves(field: pa.Field, level: int, slot: int, above: list[tuple[int, int, int]], lists: int = 0) -> Iterator[Any]:
    """Yields (`Leaf`, definition level) of each column below a field.

    Args:
        level: definition level of the parent.
        slot: definition level at which the enclosing list has an element.
        above: (least, most, length) of the enclosing vectors of fixed length.
        lists: number of enclosing lists.
    """
    kind, present = field.type, level + field.nullable
    if pa.types.is_fixed_size_list(kind):
        above = [*above, (slot, present - 1, int(kind.list_size))]
        yield from _leaves(kind.value_field, present + 1, present + 1, above, lists)
    elif pa.types.is_map(kind):
        for inner in (kind.key_field, kind.item_field):
            yield from _leaves(inner, present + 1, present + 1, above, lists + 1)
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _leaves(kind.field(i), present, slot, above, lists)
    elif hasattr(kind, "value_field"):
        yield from _leaves(kind.value_field, present + 1, present + 1, above, lists + 1)
    else:
        width, chain = (own := _width(kind)), []
        for least, most, length in reversed(above):
            width *= length
            if least <= most:
                chain.append(Padded(least, most, width))
        yield Leaf(own, tuple(chain[::-1]), lists), present


def _width(kind: pa.DataType) -> int:
    """Returns the bytes of a value in Arrow; 16 for strings and other types without a fixed width."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 16


def padding(page: Page, data: Any, codec: str, leaf: pq.ColumnSchema, nulls: Sequence[Padded]) -> int:
    """Returns an upper bound of the bytes that the nulls of a page take.

    Args:
        data: the bytes of the column chunk.
        codec: pyarrow's name of the codec.
        leaf: the column in the Parquet schema.
        nulls: vectors of fixed length whose nulls are counted.

    Raises:
        ValueError: invalid definition levels.
    """
    width = leaf.max_definition_level.bit_length()
    counts = np.zeros(1 << width, np.int64)
    for levels, times in _runs(_definition(page, data, codec, leaf), width, page.values):
        counts += np.bincount(levels, minlength=len(counts)) * times
    return sum(int(counts[one.least : one.most + 1].sum()) * one.bytes for one in nulls)


def _definition(page: Page, data: Any, codec: str, leaf: pq.ColumnSchema) -> bytes:
    """Returns the encoded definition levels of a page."""
    content = data[page.start : page.start + page.size]
    if page.kind == DATA_V2:
        first, second = page.repetition_bytes, page.definition_bytes
        if first < 0 or second < 0 or first + second > page.size:
            raise ValueError("a page claims more levels than it has")
        return bytes(content[first : first + second])
    if page.level_encodings != (_RLE, _RLE):
        raise ValueError("a page has levels of an old encoding")
    if codec in _STREAMED:
        return _read_definition(pa.CompressedInputStream(pa.BufferReader(content), codec.lower()), page, leaf)
    return _read_definition(pa.BufferReader(decompressed(content, codec, page.uncompressed)), page, leaf)


def _read_definition(stream: Any, page: Page, leaf: pq.ColumnSchema) -> bytes:
    """Reads the encoded definition levels, which follow the repetition levels if there are any."""
    found, left = b"", page.uncompressed
    for _ in range(2 if leaf.max_repetition_level else 1):
        head = stream.read(4)
        size = _LENGTH.unpack(head)[0] if len(head) == 4 else left
        left -= 4 + size
        if left < 0:
            raise ValueError("a page has more levels than bytes")
        found = stream.read(size)
    return found


def _runs(data: bytes, width: int, values: int) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes ``values`` levels. Yields (levels, number of times that they repeat)."""
    at, left = 0, values
    while at < len(data) and left:
        head = shift = 0
        while at < len(data):
            byte = data[at]
            at += 1
            head |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                break
        if head >> 1 == 0:
            raise ValueError("a page has a run of no levels")
        if head & 1:
            size = (head >> 1) * width
            for start in range(at, min(at + size, len(data)), _PACKED_BYTES * width):
                piece = data[start : min(at + size, start + _PACKED_BYTES * width)]
                bits = np.unpackbits(np.frombuffer(piece, np.uint8), bitorder="little")
                packed = bits[: len(bits) // width * width].reshape(-1, width)[:left]
                left -= len(packed)
                yield packed.astype(np.int64) @ (1 << np.arange(width)), 1
                if not left:
                    break
        else:
            size = (width + 7) // 8
            level = int.from_bytes(data[at : at + size], "little")
            if level >= 1 << width:
                raise ValueError("a page has a level that is too high")
            times = min(left, head >> 1)
            left -= times
            yield np.array([level]), times
        at += size
