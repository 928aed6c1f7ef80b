"""Reads Parquet files from others within bounds: computes what columns take in memory before pyarrow decodes them.

A shard may come from somebody else, and kilobytes can claim gigabytes (`pipeline.parquet.pages`). Tessera's own row
groups hold ``row_group_bytes`` in memory, or one row. So a row group that takes more than `MAX_BYTES`, and more than
`MAX_RATIO` times its bytes in the file, is refused. The file as a whole may be of any size.
"""

from __future__ import annotations

import bisect
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import ConfigError
from pipeline.parquet.levels import Leaf, leaves, padding
from pipeline.parquet.pages import DATA, DATA_V2, DICTIONARY, PADDING, Page, chunk_place, pages, shared_bytes
from pipeline.storage.local_files import is_hole
from pipeline.storage.remote_file import RemoteFile
from pipeline.storage.seekable import Seekable

VARIABLE = "TESSERA_MAX_ROW_GROUP_BYTES"
"""Environment variable: another `MAX_BYTES`, for datasets that are trusted."""
MAX_BYTES = 1 << 30
"""Of the columns of a row group that are read, decoded, whatever they have in the file."""
MAX_RATIO = 100
"""Of the same, to their bytes in the file, beyond that."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
_OFFSET_BYTES = 8
_LEVEL_BYTES = 4
"""Of a value's definition and repetition."""
_PLAIN, _DELTA_LENGTH_BYTE_ARRAY = 0, 6
_BATCH_ROWS = 1 << 16
_FETCH_BYTES = 32 << 20
"""Of row groups that are requested from an object store together."""


class BoundedFile(Seekable):
    """A Parquet file as a binary file, which checks each column chunk that is read from it. Reading raises
    ``ValueError`` for a row group over the bounds.

    Args:
        file: a raw file, open for reading; closed with this one.
    """

    size: int

    def __init__(self, file: Any) -> None:
        super().__init__(int(file.seek(0, 2) or file.tell()))
        if isinstance(file, io.FileIO) and is_hole(os.fstat(file.fileno())):
            raise ValueError(f"a file of {self.size} bytes that is nearly all hole")
        self._file = file
        self._metadata: pq.FileMetaData | None = None
        self._starts: list[int] = []
        self._chunks: dict[int, list[tuple[int, int, int]]] = {}
        """Start -> (bytes, row group, column)."""
        self._leaves: list[Leaf] = []
        self._tail: tuple[int, Any] = (self.size, b"")
        """The end of the file, as it was read first: what the footer says must not change."""
        self._seen: set[tuple[int, int]] = set()
        self._decoded: dict[int, int] = defaultdict(int)
        self._stored: dict[int, int] = defaultdict(int)

    def bound(self, metadata: pq.FileMetaData) -> None:
        """Restricts reading to the footer and to whole column chunks of ``metadata``, and starts to check these."""
        self._metadata, self._leaves = metadata, leaves(metadata.schema)
        self._chunks = {}
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                start, size = chunk_place(row_group.column(number), self.size)
                self._chunks.setdefault(start, []).append((size, group, number))
        self._starts = sorted(self._chunks)

    def read(self, size: int | None = -1) -> Any:
        wanted = self.wanted(size)
        at = self.at
        start, tail = self._tail
        if at >= start:
            data = memoryview(tail)[at - start : at - start + wanted]
        else:
            self._file.seek(at)
            data = _read(self._file, wanted)
        self.at += len(data)
        if self._metadata is None:
            if at < start and at + len(data) == self.size:
                self._tail = (at, data)
        elif wanted:
            self._look(at, data)
        return data

    def fetch(self, groups: Sequence[int], columns: Sequence[str]) -> int:
        """Reads the columns of the first row groups from an object store, together.

        Returns:
            how many groups: as many as have `_FETCH_BYTES`, at least one; of a local file, of which nothing is read
            here, all.
        """
        if self._metadata is None or not isinstance(self._file, RemoteFile):
            return len(groups)
        schema = self._metadata.schema
        paths = [f"{schema.column(number).path}." for number in range(len(schema))]
        wanted = [n for n, path in enumerate(paths) if any(path.startswith(f"{name}.") for name in columns)]
        ranges: list[tuple[int, int]] = []
        count, total = 0, 0
        for group in groups:
            places = [chunk_place(self._metadata.row_group(group).column(n), self.size) for n in wanted]
            total += sum(size for _, size in places)
            if count and total > _FETCH_BYTES:
                break
            ranges += [(start, min(start + size + PADDING, self.size)) for start, size in places]
            count += 1
        self._file.fetch(ranges)
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _look(self, at: int, data: Any) -> None:
        """Checks the column chunks in ``data``, the bytes from ``at`` on: pyarrow reads one, or adjacent ones."""
        end = at + len(data)
        if at not in self._chunks:
            if end == self.size:
                return  # the footer
            raise ValueError(f"bytes {at} to {end} are read that no column was said to have")
        view = memoryview(data).cast("B")
        for start in self._starts[bisect.bisect_left(self._starts, at) :]:
            if start >= end:
                break
            for size, group, number in self._chunks[start]:
                if start + size <= end:
                    self._count(group, number, start, view[start - at : start - at + size + PADDING])
                elif start == at:
                    raise ValueError(f"bytes {at} to {end} are read of a column that has {size}")

    def _count(self, group: int, number: int, start: int, data: memoryview) -> None:
        if (group, number) in self._seen:
            return
        assert self._metadata is not None
        column, leaf = self._metadata.row_group(group).column(number), self._metadata.schema.column(number)
        stored = self._stored[group] + column.total_compressed_size
        left = max(_max_bytes(), MAX_RATIO * stored) - self._decoded[group]
        takes, sure = _decoded(data, column, leaf, self._leaves[number], left)
        if takes > left and not sure:
            takes = string_bytes(self._metadata, group, number, data, self.size, left)
        if takes > left:
            raise ValueError(
                f"column {column.path_in_schema!r} of row group {group + 1} claims {takes} bytes in memory, "
                f"and has {column.total_compressed_size} in the file; if it is to be trusted, give {VARIABLE}"
            )
        self._seen.add((group, number))
        self._stored[group] = stored
        self._decoded[group] += takes


def _max_bytes() -> int:
    given = os.environ.get(VARIABLE, "")
    if not given:
        return MAX_BYTES
    if not given.isdecimal():
        raise ConfigError(VARIABLE, f"found {given!r}", "a number of bytes")
    return int(given)


def string_bytes(metadata: pq.FileMetaData, group: int, number: int, data: Any, size: int, most: int) -> int:
    """Bytes of the strings of a column chunk; repeated ones count each time. Reads them as a dictionary, not copied.

    Args:
        data: the chunk's bytes.
        size: of its file.
        most: where there are more, any larger number is returned.
    """
    column = metadata.row_group(group).column(number)
    path, (start, _) = column.path_in_schema, chunk_place(column, size)
    alone = pq.ParquetFile(
        pa.PythonFile(_Piece(start, memoryview(data), size), mode="r"),
        metadata=metadata,
        read_dictionary=[path],
        arrow_extensions_enabled=False,
    )
    total = 0
    try:
        for batch in alone.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[path], use_threads=False):
            total += batch.nbytes + _strings(batch.column(0))
            if total > most:
                break
    except (
        pa.ArrowNotImplementedError
    ):  # its encoding cannot be read as a dictionary, so its size is not known: refused
        return most + 1
    return total


class _Piece(Seekable):
    """A file of which only one piece can be read."""

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


def _read(file: Any, wanted: int) -> Any:
    """Reads ``wanted`` bytes, fewer at the end; those of a local file into Arrow's memory."""
    if not isinstance(file, io.FileIO):
        return file.read(wanted)
    buffer = pa.allocate_buffer(wanted)
    view, got = memoryview(buffer).cast("B"), 0
    while got < wanted and (more := file.readinto(view[got:])):
        got += more
    return buffer if got == wanted else buffer.slice(0, got)


def _decoded(
    data: memoryview, column: pq.ColumnChunkMetaData, leaf: pq.ColumnSchema, arrow: Leaf, left: int
) -> tuple[int, bool]:
    """Upper bound of the bytes that a column chunk takes, where each string of a dictionary counts as its longest; and
    whether a lower bound is over ``left`` too, or the same."""
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
        width = max(arrow.width, _WIDTHS.get(column.physical_type) or max(1, leaf.length or 0))
        return page + levels + values * width, True
    own = sum(page.uncompressed for page in found)
    least = page + levels + own + values * arrow.width
    if least > left:
        return least, True
    shared = max((shared_bytes(page, data, column, (left - own) // max(1, values)) for page in found), default=0)
    return least + shared * sum(page.values for page in found if not _owns(page)), False


def _owns(page: Page) -> bool:
    """True if the page stores each value separately."""
    return page.kind == DICTIONARY or page.encoding in (_PLAIN, _DELTA_LENGTH_BYTE_ARRAY)


def _strings(values: pa.Array) -> int:
    """Bytes of all strings, also nested ones; repeated ones count each time."""
    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(values.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(values.indices)).as_py() or 0
    if pa.types.is_struct(values.type):
        return sum(_strings(values.field(i)) for i in range(values.type.num_fields))
    if pa.types.is_map(values.type):
        return _strings(values.keys) + _strings(values.items)
    if hasattr(values, "flatten"):
        return _strings(values.flatten())
    return 0
