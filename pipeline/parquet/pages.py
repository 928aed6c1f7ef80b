"""Parses the headers of the pages of a Parquet column, before pyarrow decodes them.

A file of some kilobytes can hold a page that decompresses to gigabytes, or a dictionary of one long value that
millions of rows point to. The size of both follows from the page's header and the dictionary; the file's footer may
say anything.

Page headers are Thrift structs in the compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DATA, INDEX, DICTIONARY, DATA_V2 = 0, 1, 2, 3
"""Types of pages."""
_HEADERS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
"""Type -> the field of its own header."""
_DELTA_BYTE_ARRAY = 7
PADDING = 100
"""pyarrow reads so many bytes more of files of an old writer."""
_MOST_VALUES, _MOST_BYTES = 1 << 20, 64 << 20
"""Of a dictionary whose values are looked at. pyarrow writes one of a megabyte, and some values."""
_LENGTH = struct.Struct("<I")
_MAX_DEPTH = 16


@dataclass
class Page:
    """A page's header."""

    kind: int
    start: int
    """Where its data begin."""
    size: int
    """Bytes of its data in the file."""
    uncompressed: int
    values: int
    encoding: int
    level_encodings: tuple[int, int] = (0, 0)
    """Of definition and repetition, in a `DATA` page."""
    definition_bytes: int = 0
    """Of the levels in a `DATA_V2` page."""
    repetition_bytes: int = 0


def chunk_place(column: pq.ColumnChunkMetaData, size: int) -> tuple[int, int]:
    """Returns (start, bytes) of what pyarrow reads of a column chunk, in a file of ``size`` bytes.

    Raises:
        ValueError: the footer claims what cannot be.
    """
    start, first = column.data_page_offset, column.dictionary_page_offset
    if column.has_dictionary_page and first is not None and 0 < first < start:
        start = first
    length = column.total_compressed_size
    if not (start >= 4 and 0 <= length <= size - start):
        raise ValueError(f"column {column.path_in_schema!r} claims bytes {start} to {start + length} of {size}")
    return start, length


def pages(data: Any, values: int) -> list[Page]:
    """Pages of a column of a row group until all ``values`` are there, which is where pyarrow stops too.

    Raises:
        ValueError: a header that is none, or that claims what cannot be.
    """
    found: list[Page] = []
    at, seen = 0, 0
    while seen < values and at < len(data):
        page = _Header(data, at).page()
        if page.size < 0 or page.uncompressed < 0 or page.values < 0 or page.start + page.size > len(data):
            raise ValueError(f"a page claims {page.size} bytes, decompressed {page.uncompressed}, {page.values} values")
        if page.kind == DICTIONARY and found:
            raise ValueError("a dictionary behind other pages")
        found.append(page)
        seen += page.values if page.kind in (DATA, DATA_V2) else 0
        at = page.start + page.size
    return found


def shared_bytes(page: Page, data: Any, column: pq.ColumnChunkMetaData, small: int) -> int:
    """No value that the page holds once, and many rows may have, is longer than this: one of a dictionary, or a
    prefix. A dictionary of at most ``small`` bytes is not decoded to see how long its values are."""
    if column.physical_type != "BYTE_ARRAY":
        return 0
    if page.kind != DICTIONARY:
        return page.uncompressed if page.encoding == _DELTA_BYTE_ARRAY else 0
    return page.uncompressed if page.uncompressed <= small else _longest(page, data, column.compression)


def decompressed(content: Any, codec: str, size: int) -> Any:
    """Returns the content of a page. ``codec``: pyarrow's name of it in a footer. Raises as `pyarrow.decompress`."""
    if codec == "UNCOMPRESSED":
        return content
    return pa.decompress(content, size, "lz4_raw" if codec == "LZ4" else codec.lower(), asbytes=True)


def _longest(page: Page, data: Any, codec: str) -> int:
    """Bytes of the longest string of a dictionary; where it cannot be decoded, of all of it."""
    if page.values > _MOST_VALUES or page.uncompressed > _MOST_BYTES:
        return page.uncompressed
    content = data[page.start : page.start + page.size]
    try:
        content = decompressed(content, codec, page.uncompressed)
    except (ValueError, OSError, pa.ArrowException, NotImplementedError):
        return page.uncompressed
    at, most, end = 0, 0, len(content)
    for _ in range(page.values):
        if at >= end:
            break
        (length,) = _LENGTH.unpack_from(content, at) if at + 4 <= end else (0,)
        most = max(most, length)
        at += 4 + length
    return min(most, page.uncompressed)


class _Header:
    """A struct of Thrift's compact protocol, as far as a page's header needs it."""

    def __init__(self, data: Any, at: int) -> None:
        self.data, self.at = data, at

    def page(self) -> Page:
        found = self._struct(0)
        kind, size, uncompressed = (self._number(found, key) for key in (1, 3, 2))
        if kind not in (DATA, INDEX, DICTIONARY, DATA_V2):
            raise ValueError(f"a page of type {kind}")
        if kind == INDEX:
            return Page(kind, self.at, size, uncompressed, values=0, encoding=0)
        header = found.get(_HEADERS[kind])
        if not isinstance(header, dict):
            raise ValueError("a page's header does not say what is in it")
        values, encoding = self._number(header, 1), self._number(header, 4 if kind == DATA_V2 else 2)
        found_page = Page(kind, self.at, size, uncompressed, values, encoding)
        if kind == DATA:
            found_page.level_encodings = (self._number(header, 3), self._number(header, 4))
        elif kind == DATA_V2:
            found_page.definition_bytes, found_page.repetition_bytes = self._number(header, 5), self._number(header, 6)
        return found_page

    @staticmethod
    def _number(found: dict[int, Any], key: int) -> int:
        value = found.get(key)
        if not isinstance(value, int):
            raise ValueError("a page's header lacks a number")
        return value

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("a page's header breaks off")
        self.at += 1
        return int(self.data[self.at - 1])

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page's header holds no number")

    def _integer(self) -> int:
        """An integer of at most 32 bits. Thrift's C++ parser, which pyarrow uses, cuts off the bits above these."""
        value = self._varint() & 0xFFFFFFFF
        return (value >> 1) ^ -(value & 1)

    def _struct(self, depth: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        last = 0
        while head := self._byte():
            last = last + (head >> 4) if head >> 4 else self._integer()
            last = (last + 0x8000) % 0x10000 - 0x8000  # 16 bits, as in Thrift's own parser
            value = self._value(head & 15, depth)
            if value is not None:
                found[last] = value
        return found

    def _value(self, kind: int, depth: int) -> int | dict[int, Any] | None:
        """Of an i32 or a struct. None for other types, which pyarrow would not take for one either."""
        if depth > _MAX_DEPTH:
            raise ValueError("a page's header is nested too deep")
        if kind == 5:
            return self._integer()
        if kind in (4, 6):
            self._varint()
            return None
        if kind == 12:
            return self._struct(depth + 1)
        if kind in (3, 7):
            self._skip(1 if kind == 3 else 8)
        elif kind == 8:
            self._skip(self._varint() & 0xFFFFFFFF)
        elif kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint() & 0xFFFFFFFF
            for _ in range(size):
                self._byte() if head & 15 in (1, 2) else self._value(head & 15, depth + 1)
        elif kind not in (1, 2):
            raise ValueError("a page's header is no Thrift")
        return None

    def _skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise ValueError("a page's header breaks off")
        self.at += size
