"""Finds the pages of a Parquet column chunk and the sizes of their values, before pyarrow decodes them.

A file of some kilobytes can hold a page that decompresses to gigabytes, or a dictionary with one long value that
millions of rows refer to. Both sizes follow from the page's header and the dictionary. The file's footer is not
reliable.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet._page_header import DATA, DATA_V2, DICTIONARY, INDEX, Page, read_page_header

__all__ = [
    "DATA",
    "DATA_V2",
    "DICTIONARY",
    "INDEX",
    "PADDING",
    "Page",
    "chunk_place",
    "decompressed",
    "pages",
    "shared_bytes",
]

_DELTA_BYTE_ARRAY = 7
PADDING = 100
"""pyarrow reads this many bytes more from files of an old writer."""
_MAX_DICTIONARY_VALUES, _MAX_DICTIONARY_BYTES = 1 << 20, 64 << 20
"""Maximum size of a dictionary that is decoded. pyarrow writes dictionaries of about a megabyte."""
_LENGTH = struct.Struct("<I")


def chunk_place(column: pq.ColumnChunkMetaData, size: int) -> tuple[int, int]:
    """Returns (start, bytes) of the part of the file that pyarrow reads for a column chunk.

    Args:
        size: size of the file in bytes.

    Raises:
        ValueError: the position in the footer is not in the file.
    """
    start, first = column.data_page_offset, column.dictionary_page_offset
    if column.has_dictionary_page and first is not None and 0 < first < start:
        start = first
    length = column.total_compressed_size
    if not (start >= 4 and 0 <= length <= size - start):
        raise ValueError(f"column {column.path_in_schema!r} claims bytes {start} to {start + length} of {size}")
    return start, length


def pages(data: Any, values: int) -> list[Page]:
    """Returns the pages of a column chunk until they hold all values, which is where pyarrow stops as well.

    Args:
        data: the bytes of the chunk.
        values: number of values of the chunk.

    Raises:
        ValueError: a header that is invalid, or whose sizes are impossible.
    """
    found: list[Page] = []
    at, seen = 0, 0
    while seen < values and at < len(data):
        page = read_page_header(data, at)
        if page.size < 0 or page.uncompressed < 0 or page.values < 0 or page.start + page.size > len(data):
            raise ValueError(f"a page claims {page.size} bytes, decompressed {page.uncompressed}, {page.values} values")
        if page.kind == DICTIONARY and found:
            raise ValueError("a dictionary behind other pages")
        found.append(page)
        seen += page.values if page.kind in (DATA, DATA_V2) else 0
        at = page.start + page.size
    return found


def shared_bytes(page: Page, data: Any, column: pq.ColumnChunkMetaData, small: int) -> int:
    """Returns an upper bound of a value that the page stores once for many rows: a value of a dictionary, or a prefix.

    Args:
        small: a dictionary of at most this many bytes is not decoded; its whole size is the bound.
    """
    if column.physical_type != "BYTE_ARRAY":
        return 0
    if page.kind != DICTIONARY:
        return page.uncompressed if page.encoding == _DELTA_BYTE_ARRAY else 0
    return page.uncompressed if page.uncompressed <= small else _longest(page, data, column.compression)


def decompressed(content: Any, codec: str, size: int) -> Any:
    """Returns the decompressed content of a page. Raises the errors of `pyarrow.decompress`.

    Args:
        codec: pyarrow's name of the codec, as in a footer.
        size: bytes of the decompressed content.
    """
    if codec == "UNCOMPRESSED":
        return content
    return pa.decompress(content, size, "lz4_raw" if codec == "LZ4" else codec.lower())


def _longest(page: Page, data: Any, codec: str) -> int:
    """Returns the bytes of the longest string of a dictionary; of the whole dictionary if it cannot be decoded."""
    if page.values > _MAX_DICTIONARY_VALUES or page.uncompressed > _MAX_DICTIONARY_BYTES:
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
