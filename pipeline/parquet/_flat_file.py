"""Makes a Parquet file in memory from the decoded pages of one column, without levels, so that pyarrow reads its values
only.

Footer and page headers are Thrift structs in the compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

_MAGIC = b"PAR1"
_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
_REQUIRED, _DATA_PAGE, _RLE, _UNCOMPRESSED = 0, 0, 3, 0
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
"""Types of Thrift."""
_NAME = b"values"
_MAX_CACHED = 256
"""Page headers and footers that are cached: those of most pages and row groups are the same."""


class FlatPage(NamedTuple):
    """The values of a page."""

    content: memoryview
    """The encoded values, decompressed."""
    values: int
    encoding: int


def flat_file(pages: Sequence[FlatPage], physical_type: str, length: int) -> pa.Buffer:
    """Returns a Parquet file with one column, which has no nulls and no lists.

    Args:
        pages: the values.
        physical_type: pyarrow's name of the type.
        length: bytes of a value of fixed length; 0: another type.
    """
    headers = [_page_header(len(page.content), page.values, page.encoding) for page in pages]
    size = sum(map(len, headers)) + sum(len(page.content) for page in pages)
    encodings = tuple(sorted({page.encoding for page in pages}))
    footer = _footer(sum(page.values for page in pages), encodings, size, _TYPES.index(physical_type), length)
    file = pa.allocate_buffer(len(_MAGIC) + size + len(footer))
    view, at = memoryview(file).cast("B"), 0
    contents = [piece for header, page in zip(headers, pages, strict=True) for piece in (header, page.content)]
    for piece in (_MAGIC, *contents, footer):
        view[at : at + len(piece)] = piece
        at += len(piece)
    return file


@lru_cache(_MAX_CACHED)
def _page_header(content_bytes: int, values: int, encoding: int) -> bytes:
    size = (_I32, _zigzag(content_bytes))
    levels = (_I32, _zigzag(_RLE))
    data = {1: (_I32, _zigzag(values)), 2: (_I32, _zigzag(encoding)), 3: levels, 4: levels}
    return _struct({1: (_I32, _zigzag(_DATA_PAGE)), 2: size, 3: size, 5: (_STRUCT, _struct(data))})


@lru_cache(_MAX_CACHED)
def _footer(values: int, encodings: tuple[int, ...], size: int, kind: int, length: int) -> bytes:
    """Returns the footer of a file whose pages have ``size`` bytes with their headers."""
    count = _zigzag(values)
    leaf = {
        1: (_I32, _zigzag(kind)),
        2: (_I32, _zigzag(length)),
        3: (_I32, _zigzag(_REQUIRED)),
        4: (_BINARY, _text(_NAME)),
    }
    schema = [_struct({4: (_BINARY, _text(_NAME)), 5: (_I32, _zigzag(1))}), _struct(leaf)]
    column = {
        1: (_I32, _zigzag(kind)),
        2: (_LIST, _list(_I32, [_zigzag(one) for one in encodings])),
        3: (_LIST, _list(_BINARY, [_text(_NAME)])),
        4: (_I32, _zigzag(_UNCOMPRESSED)),
        5: (_I64, count),
        6: (_I64, _zigzag(size)),
        7: (_I64, _zigzag(size)),
        9: (_I64, _zigzag(len(_MAGIC))),
    }
    chunk = _struct({2: (_I64, _zigzag(0)), 3: (_STRUCT, _struct(column))})
    group = _struct({1: (_LIST, _list(_STRUCT, [chunk])), 2: (_I64, _zigzag(size)), 3: (_I64, count)})
    footer = _struct(
        {
            1: (_I32, _zigzag(2)),
            2: (_LIST, _list(_STRUCT, schema)),
            3: (_I64, count),
            4: (_LIST, _list(_STRUCT, [group])),
        }
    )
    return footer + len(footer).to_bytes(4, "little") + _MAGIC


def _struct(fields: dict[int, tuple[int, bytes]]) -> bytes:
    """Encodes a struct: number of a field, ascending -> (type, value)."""
    found, last = b"", 0
    for number, (kind, value) in fields.items():
        found += bytes([number - last << 4 | kind]) + value
        last = number
    return found + b"\0"


def _list(kind: int, items: list[bytes]) -> bytes:
    """Encodes a list of fewer than 15 items."""
    return bytes([len(items) << 4 | kind]) + b"".join(items)


def _text(value: bytes) -> bytes:
    return varint(len(value)) + value


def _zigzag(value: int) -> bytes:
    """Encodes an integer that is not negative."""
    return varint(value << 1)


def varint(value: int) -> bytes:
    """Encodes an unsigned integer, seven bits in each byte, the lowest first."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
