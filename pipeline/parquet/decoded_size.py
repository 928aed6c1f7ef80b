"""Computes from the page headers of a column chunk how many bytes it takes in memory when pyarrow decodes it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.seekable import Seekable
from pipeline.parquet.levels import Leaf, padding
from pipeline.parquet.pages import DATA, DATA_V2, DICTIONARY, Page, chunk_place, pages, shared_bytes

_VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
_OFFSET_BYTES = 8
_LEVEL_BYTES = 4
"""Bytes of the definition and repetition levels of a value."""
_PLAIN, _DELTA_LENGTH_BYTE_ARRAY = 0, 6
"""Encodings of pages that store each value separately."""
_BATCH_ROWS = 1 << 16


def decoded_size(
    data: memoryview, column: pq.ColumnChunkMetaData, leaf: pq.ColumnSchema, arrow: Leaf, left: int
) -> tuple[int, bool]:
    """Estimates the bytes that a column chunk takes in memory.

    Args:
        data: the bytes of the chunk.
        column: its metadata in the footer.
        leaf: its column in the Parquet schema.
        arrow: its column in the Arrow schema.
        left: bytes that are allowed.

    Returns:
        size: an upper bound; each string of a dictionary counts with the length of the longest.
        is_certain: if the upper bound is over ``left``, the true size is also. False: `string_bytes` has to decide.

    Raises:
        ValueError: an invalid page header.
    """
    found = pages(data, column.num_values)
    values = sum(page.values for page in found if page.kind != DICTIONARY)
    levels = _LEVEL_BYTES * values if leaf.max_definition_level or leaf.max_repetition_level else 0
    levels += arrow.lists * values * _OFFSET_BYTES
    page = max((page.uncompressed for page in found), default=0)
    if arrow.padded and page + levels <= left:
        levels += sum(
            padding(one, data, column.compression, leaf, arrow.padded) for one in found if one.kind in (DATA, DATA_V2)
        )
    if column.physical_type != "BYTE_ARRAY":
        width = max(arrow.width, _VALUE_BYTES.get(column.physical_type) or max(1, leaf.length or 0))
        return page + levels + values * width, True
    own = sum(page.uncompressed for page in found)
    least = page + levels + own + values * arrow.width
    if least > left:
        return least, True
    shared = max((shared_bytes(page, data, column, (left - own) // max(1, values)) for page in found), default=0)
    return least + shared * sum(page.values for page in found if not _stores_each_value(page)), False


def string_bytes(metadata: pq.FileMetaData, group: int, number: int, data: Any, size: int, most: int) -> int:
    """Returns the bytes of all strings of a column chunk; a string that occurs several times counts each time.

    Decodes the chunk as a dictionary, so that the strings are not copied.

    Args:
        group: number of the row group.
        number: number of the column.
        data: the bytes of the chunk.
        size: size of the file in bytes.
        most: for a larger result, any number over ``most`` is returned.
    """
    column = metadata.row_group(group).column(number)
    path, (start, _) = column.path_in_schema, chunk_place(column, size)
    file = pq.ParquetFile(
        pa.PythonFile(_ChunkFile(start, memoryview(data), size), mode="r"),
        metadata=metadata,
        read_dictionary=[path],
        pre_buffer=False,  # see `open_parquet`
        arrow_extensions_enabled=False,
    )
    total = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[path], use_threads=False):
            total += batch.nbytes + _string_bytes(batch.column(0))
            if total > most:
                break
    except pa.ArrowNotImplementedError:  # the encoding cannot be decoded as a dictionary: refused, the size is unknown
        return most + 1
    return total


class _ChunkFile(Seekable):
    """A file of which only one column chunk can be read.

    Args:
        start: offset of the chunk in the file.
        data: its bytes.
        size: size of the file.
    """

    size: int

    def __init__(self, start: int, data: memoryview, size: int) -> None:
        super().__init__(size)
        self._start, self._data = start, data

    def read(self, size: int | None = -1) -> Any:
        wanted = self.wanted(size)
        first = self.at - self._start
        if first < 0 or first + wanted > len(self._data):
            raise ValueError(f"bytes {self.at} to {self.at + wanted} are not of this column")
        self.at += wanted
        return self._data[first : first + wanted]


def _stores_each_value(page: Page) -> bool:
    """Returns whether a page stores each value separately, without references to shared ones."""
    return page.kind == DICTIONARY or page.encoding in (_PLAIN, _DELTA_LENGTH_BYTE_ARRAY)


def _string_bytes(values: pa.Array) -> int:
    """Returns the bytes of all strings of an array, also nested ones; each occurrence counts."""
    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(values.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(values.indices)).as_py() or 0
    if pa.types.is_struct(values.type):
        return sum(_string_bytes(values.field(i)) for i in range(values.type.num_fields))
    if pa.types.is_map(values.type):
        return _string_bytes(values.keys) + _string_bytes(values.items)
    if hasattr(values, "flatten"):
        return _string_bytes(values.flatten())
    return 0
