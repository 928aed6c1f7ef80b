"""Decodes columns of lists and vectors without expanding their levels.

pyarrow decodes a definition and a repetition level for each number of a list, which takes more than half of the time
for embeddings and tokens. If there are no nulls and all innermost lists have the same length, the levels repeat a
pattern of some bytes for each of them. These bytes are compared with the pattern, and only the values are decoded. All
other columns are left to pyarrow.

Levels have the RLE/bit-packing hybrid encoding (https://github.com/apache/parquet-format/blob/master/Encodings.md),
here as Arrow's writer chooses the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet._flat_file import FlatPage, flat_file, varint
from pipeline.parquet.pages import DATA, Page, decompressed, pages

_PLAIN, _RLE, _BYTE_STREAM_SPLIT = 0, 3, 9
"""Encodings."""
_RUN = 8
"""Values that are bit-packed together. A repeated run has at least so many."""
_CODECS = ("UNCOMPRESSED", "ZSTD")
"""Codecs of pages. With the others, Arrow does not say if a page has fewer bytes than it claims."""
_SPLIT_BYTES = 4 << 20
"""Bytes of pages that pyarrow decodes together."""
_MAX_NUMBERS = (1 << 31) - 1
"""Arrow counts the values of a list column with 32 bits."""
_PHYSICAL_BYTES = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class ListColumn:
    """A column whose levels may follow the pattern."""

    kind: pa.DataType
    physical_type: str
    value_bytes: int
    max_definition: int
    is_nested: bool
    """Whether the values are vectors in lists; otherwise they are numbers in lists, or in vectors."""

    @classmethod
    def of(cls, kind: pa.DataType, leaf: pq.ColumnSchema) -> ListColumn | None:
        """Returns the layout of a column; None if it is not a list of numbers or of vectors.

        Args:
            kind: its type in Arrow.
            leaf: its column in the Parquet schema.
        """
        if not _is_list(kind) and not pa.types.is_fixed_size_list(kind):
            return None
        is_nested = _is_list(kind) and pa.types.is_fixed_size_list(kind.value_type)
        numbers = kind.value_type.value_type if is_nested else kind.value_type
        if not (pa.types.is_integer(numbers) or pa.types.is_floating(numbers)):
            return None
        stored = (
            leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else _PHYSICAL_BYTES.get(leaf.physical_type)
        )
        if stored != numbers.bit_width // 8 or leaf.max_repetition_level != 1 + is_nested:
            return None
        return cls(kind, leaf.physical_type, stored, leaf.max_definition_level, is_nested)


def decode_regular_lists(
    data: memoryview, chunk: pq.ColumnChunkMetaData, column: ListColumn, rows: int
) -> pa.Array | None:
    """Decodes a column chunk.

    Args:
        data: its bytes.
        chunk: its metadata in the footer.
        column: its layout.
        rows: rows of the row group.

    Returns:
        the rows; None if there are nulls, lists of other lengths, or pages that only pyarrow decodes.
    """
    try:
        found = _Chunk(data, chunk, column)
        return found.array(rows) if found.is_regular else None
    except (ValueError, OSError, pa.ArrowException):  # pyarrow says what is wrong
        return None


class _Chunk:
    """The pages of a column chunk."""

    def __init__(self, data: memoryview, chunk: pq.ColumnChunkMetaData, column: ListColumn) -> None:
        self.column, self.count = column, chunk.num_values
        self.list_length = 0
        """Numbers in each innermost list."""
        self.starts: list[np.ndarray] = []
        """For each page and each of its innermost lists: whether a row begins with it."""
        self.is_regular = False
        found = pages(data, self.count)
        if chunk.compression not in _CODECS or sum(page.values for page in found if page.kind == DATA) != self.count:
            return
        self.size = self.count * column.value_bytes
        """Bytes of all numbers."""
        self.numbers: pa.Buffer | None = None
        """The decoded numbers; only the first ``filled`` bytes are set. None: there are none yet."""
        self.filled = 0
        self.split: list[FlatPage] = []
        """Pages that follow these, and that pyarrow decodes together."""
        self.is_regular = all(self._add(page, data, chunk.compression) for page in found)

    def array(self, rows: int) -> pa.Array | None:
        """Returns the rows; None if there are not ``rows`` of them."""
        self._decode_split()
        if not rows or self.filled != self.size or self.count > _MAX_NUMBERS:
            return None
        kind, starts = self.column.kind, np.flatnonzero(np.concatenate(self.starts))
        if len(starts) != rows or starts[0] != 0:
            return None
        vectors = self.count // self.list_length
        child = pa.Array.from_buffers(_number_type(kind), self.count, [None, self.numbers])
        if self.column.is_nested:
            child = pa.Array.from_buffers(kind.value_type, vectors, [None], children=[child])
        if pa.types.is_fixed_size_list(kind):
            return pa.Array.from_buffers(kind, rows, [None], children=[child])
        offsets = np.append(starts, vectors) * (1 if self.column.is_nested else self.list_length)
        stored = offsets.astype(np.int64 if pa.types.is_large_list(kind) else np.int32)
        return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(stored)], children=[child])

    def _add(self, page: Page, data: memoryview, codec: str) -> bool:
        """Adds a page. Returns whether it can be decoded."""
        if page.kind != DATA or not page.values or page.level_encodings != (_RLE, _RLE):
            return False
        content = memoryview(decompressed(data[page.start : page.start + page.size], codec, page.uncompressed))
        repetition, rest = _with_length(content.cast("B"))
        definition, values = _with_length(rest)
        if definition != varint(page.values << 1) + bytes([self.column.max_definition]):
            return False
        starts = self._starts(bytes(repetition), page.values)
        if starts is None or len(values) != page.values * self.column.value_bytes:
            return False
        self.starts.append(starts)
        if page.encoding == _PLAIN:
            self._decode_split()
            self._append(np.frombuffer(values, np.uint8))
        elif page.encoding == _BYTE_STREAM_SPLIT:
            self.split.append(FlatPage(values, page.values, page.encoding))
            if sum(len(one.content) for one in self.split) > _SPLIT_BYTES:
                self._decode_split()
        else:
            return False
        return True

    def _append(self, values: np.ndarray) -> None:
        """Appends the bytes of numbers."""
        if self.numbers is None:
            self.numbers = pa.allocate_buffer(self.size)
        np.copyto(np.frombuffer(self.numbers, np.uint8)[self.filled : self.filled + len(values)], values)
        self.filled += len(values)

    def _decode_split(self) -> None:
        """Decodes the pages of ``split``, and appends their numbers."""
        if not self.split:
            return
        column, pages, self.split = self.column, self.split, []
        length = column.value_bytes if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        file = pq.ParquetFile(pa.BufferReader(flat_file(pages, column.physical_type, length)), pre_buffer=False)
        for values in file.read(use_threads=False).column(0).chunks:
            item = column.value_bytes
            decoded = values.buffers()[1].slice(values.offset * item, len(values) * item)
            if decoded.size == self.size:  # all pages
                self.numbers, self.filled = decoded, decoded.size
            else:
                self._append(np.frombuffer(decoded, np.uint8))

    def _starts(self, levels: bytes, values: int) -> np.ndarray | None:
        """Returns for each innermost list whether it is the first of a row; None if the levels have no pattern.

        The pattern of a list of ``n`` numbers: a group of eight levels, which are bit-packed, then a run of ``n - 8``.
        """
        level = 1 + self.column.is_nested
        self.list_length = self.list_length or self._first_length(levels)
        if self.list_length < 2 * _RUN or self.list_length % _RUN or values % self.list_length:
            return None
        ones = sum(level << bits for bits in range(0, level * _RUN, level))
        packed = (ones - level).to_bytes(level, "little")
        pattern = bytes([1 << 1 | 1]) + packed + varint(self.list_length - _RUN << 1) + bytes([level])
        lists = values // self.list_length
        if len(levels) != lists * len(pattern):
            return None
        if not self.column.is_nested:
            return np.ones(lists, bool) if levels == pattern * lists else None
        found = np.frombuffer(levels, np.uint8).reshape(lists, len(pattern)).copy()
        starts: np.ndarray = found[:, 1] == packed[0]
        found[:, 1] -= ~starts  # lists that continue a row begin with a level that is one higher
        return starts if found.tobytes() == pattern * lists else None

    def _first_length(self, levels: bytes) -> int:
        """Returns the numbers of each innermost list: of the type, or else of the first list."""
        kind = self.column.kind.value_type if self.column.is_nested else self.column.kind
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        run = shift = 0
        for byte in levels[2:7]:  # behind a group of eight levels
            run |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return _RUN + (run >> 1)


def _with_length(content: memoryview) -> tuple[memoryview, memoryview]:
    """Returns the bytes behind a length of four bytes, and the rest. Raises ``ValueError`` if there are fewer."""
    end = 4 + int.from_bytes(content[:4], "little")
    if end > len(content):
        raise ValueError("a page has fewer bytes of levels than it claims")
    return content[4:end], content[end:]


def _number_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of the numbers in lists and vectors."""
    while _is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
