"""What the pages of a Parquet column claim, before pyarrow decodes them.

A file of some kilobytes can hold a page that decompresses to gigabytes, or a dictionary of one long value that
millions of rows point to. Of both, the page's header and the dictionary tell how much it is; the file's footer may say
anything. So the bytes of each column are read here first, their headers are looked at, and the same bytes are handed
to pyarrow.

Page headers are Thrift structs in the compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
"""Types of pages. Others are passed over."""
_HEADERS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
"""Type -> the field of its own header."""
_DELTA_BYTE_ARRAY = 7
_PADDING = 100
"""pyarrow reads so many bytes more of files of an old writer."""
MAX_CHUNK_BYTES = 2 << 30
"""Of a column in a row group, as it lies in the file: pyarrow reads it whole."""
MAX_PAGE_BYTES = 256 << 20
"""Of a page, decompressed, where no longer value is allowed."""
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


@dataclass
class Chunk:
    """One column of one row group."""

    path: str
    values: int
    """Over all pages; more than rows where values are nested."""
    size: int
    """Bytes in the file."""
    page_bytes: int
    """The largest page, decompressed."""
    value_bytes: int
    """No value that many rows may share is longer: one of a dictionary, or a prefix."""


class CheckedFile(io.RawIOBase):
    """A binary file whose column chunks are looked at before pyarrow gets them: `look` reads them, and only they can be
    read, once."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.size = int(file.seek(0, 2) or file.tell())
        self.at = 0
        self.ready: dict[int, bytes] | None = None
        """Start of a chunk -> its bytes. None: the footer is being read, and all can be."""

    def look(self, metadata: pq.FileMetaData, group: int, number: int, small: int) -> Chunk:
        """Read column ``number`` of a row group, and its pages' headers.

        Args:
            small: a dictionary of no more bytes is not decoded to see how long its values are.

        Raises:
            ValueError: they claim what cannot be.
        """
        column = metadata.row_group(group).column(number)
        start, size = _place(column)
        if not (start >= 4 and 0 <= size <= self.size - start):
            raise ValueError(f"column {column.path_in_schema!r} claims bytes {start} to {start + size} of {self.size}")
        if size > MAX_CHUNK_BYTES:
            raise ValueError(
                f"column {column.path_in_schema!r} has {size} bytes in row group {group + 1}, over {MAX_CHUNK_BYTES}: "
                "write smaller row groups"
            )
        self.file.seek(start)
        data = self.file.read(min(size + _PADDING, self.size - start))
        self.ready = self.ready or {}
        self.ready[start] = data
        pages = _pages(data, column.num_values)
        return Chunk(
            path=column.path_in_schema,
            values=sum(page.values for page in pages if page.kind != DICTIONARY),
            size=size,
            page_bytes=max((page.uncompressed for page in pages), default=0),
            value_bytes=max((_value_bytes(page, data, column, small) for page in pages), default=0),
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, size: int | None = -1) -> Any:
        wanted = max(0, self.size - self.at) if size is None or size < 0 else size
        if self.ready is None:
            self.file.seek(self.at)
            data = self.file.read(wanted)
        elif wanted == 0:
            data = b""
        else:
            held = self.ready.pop(self.at, b"")
            if len(held) < min(wanted, self.size - self.at):
                raise ValueError(f"bytes {self.at} to {self.at + wanted} are read that no column was said to have")
            data = held if len(held) == wanted else memoryview(held)[:wanted]
        self.at += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def _place(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Where pyarrow reads it."""
    start, first = column.data_page_offset, column.dictionary_page_offset
    if column.has_dictionary_page and first is not None and 0 < first < start:
        start = first
    return start, column.total_compressed_size


def _pages(data: bytes, values: int) -> list[Page]:
    """Pages until all ``values`` are there, which is where pyarrow stops too."""
    found: list[Page] = []
    at, seen = 0, 0
    while seen < values and at < len(data):
        page = _Header(data, at).page()
        if page.size < 0 or page.uncompressed < 0 or page.values < 0 or page.start + page.size > len(data):
            raise ValueError(f"a page claims {page.size} bytes, decompressed {page.uncompressed}, {page.values} values")
        found.append(page)
        seen += page.values if page.kind in (DATA, DATA_V2) else 0
        at = page.start + page.size
    return found


def _value_bytes(page: Page, data: bytes, column: pq.ColumnChunkMetaData, small: int) -> int:
    """No value that the page holds once, and many rows may have, is longer than this."""
    if column.physical_type != "BYTE_ARRAY":
        return 0
    if page.kind != DICTIONARY:
        return page.uncompressed if page.encoding == _DELTA_BYTE_ARRAY else 0
    return page.uncompressed if page.uncompressed <= small else _longest(page, data, column.compression)


def _longest(page: Page, data: bytes, codec: str) -> int:
    """Bytes of the longest string of a dictionary; where that cannot be told, of all of it."""
    content = data[page.start : page.start + page.size]
    try:
        if codec != "UNCOMPRESSED":
            content = pa.decompress(content, page.uncompressed, codec.lower(), asbytes=True)
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

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def page(self) -> Page:
        found = self._struct(0)
        kind, size, uncompressed = (self._number(found, key) for key in (1, 3, 2))
        if kind not in _HEADERS:
            return Page(kind, self.at, size, uncompressed, values=0, encoding=0)
        header = found.get(_HEADERS[kind])
        if not isinstance(header, dict):
            raise ValueError("a page's header does not say what is in it")
        values, encoding = self._number(header, 1), self._number(header, 4 if kind == DATA_V2 else 2)
        return Page(kind, self.at, size, uncompressed, values, encoding)

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
        return self.data[self.at - 1]

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
        value = self._varint()
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
        if kind in (4, 5, 6):
            value = self._integer()
            return value if kind == 5 else None
        if kind == 12:
            return self._struct(depth + 1)
        if kind in (3, 7):
            self._skip(1 if kind == 3 else 8)
        elif kind == 8:
            self._skip(self._varint())
        elif kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(size):
                self._byte() if head & 15 in (1, 2) else self._value(head & 15, depth + 1)
        elif kind not in (1, 2):
            raise ValueError("a page's header is no Thrift")
        return None

    def _skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise ValueError("a page's header breaks off")
        self.at += size
