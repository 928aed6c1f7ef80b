"""Parses the header of a Parquet page.

Page headers are Thrift structs in the compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DATA, INDEX, DICTIONARY, DATA_V2 = 0, 1, 2, 3
"""Page types of the format."""
_HEADERS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
"""Page type -> field of the header struct that is specific to the type."""
_MAX_DEPTH = 16


@dataclass
class Page:
    """The header of a page."""

    kind: int
    start: int
    """Offset of the page's data, after the header."""
    size: int
    """Bytes of its data in the file."""
    uncompressed: int
    """Bytes of its data after decompression."""
    values: int
    encoding: int
    level_encodings: tuple[int, int] = (0, 0)
    """Encodings of the definition and repetition levels of a `DATA` page."""
    definition_bytes: int = 0
    """Bytes of the definition levels of a `DATA_V2` page."""
    repetition_bytes: int = 0
    """Bytes of its repetition levels."""


def read_page_header(data: Any, at: int) -> Page:
    """Parses the header at offset ``at`` of ``data``. Raises ``ValueError`` for an invalid header."""
    return _HeaderParser(data, at).page()


class _HeaderParser:
    """Parses the part of Thrift's compact protocol that page headers use.

    Args:
        at: offset of the header; afterwards the offset of the page's data.
    """

    def __init__(self, data: Any, at: int) -> None:
        self.data, self.at = data, at

    def page(self) -> Page:
        """Returns the header. Raises ``ValueError`` if it is invalid."""
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
        """Returns a zigzag integer of 32 bits. Thrift's C++ parser, which pyarrow uses, ignores higher bits."""
        value = self._varint() & 0xFFFFFFFF
        return (value >> 1) ^ -(value & 1)

    def _struct(self, depth: int) -> dict[int, Any]:
        """Returns field number -> value of a struct."""
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
        """Returns an i32 or a struct; None for a value of another type, which pyarrow ignores in their place too."""
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
        """Skips ``size`` bytes."""
        if size > len(self.data) - self.at:
            raise ValueError("a page's header breaks off")
        self.at += size
