"""Refuses row groups of untrusted Parquet files that take too much memory, before pyarrow decodes them.

Kilobytes of a file can expand to gigabytes (`pipeline.parquet.pages`). Row groups that Tessera writes take
``row_group_bytes`` in memory, or hold a single row. A row group is refused if it takes more than `MAX_BYTES` and also
more than `MAX_RATIO` times its bytes in the file. The size of the file is not limited.
"""

from __future__ import annotations

import bisect
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import ConfigError
from pipeline.core.seekable import Seekable
from pipeline.parquet.decoded_size import decoded_size, string_bytes
from pipeline.parquet.levels import Leaf, leaf_numbers, leaves
from pipeline.parquet.pages import PADDING, chunk_place
from pipeline.storage.local_files import is_hole
from pipeline.storage.remote_file import RemoteFile

VARIABLE = "TESSERA_MAX_ROW_GROUP_BYTES"
"""Environment variable that replaces `MAX_BYTES`, for trusted datasets."""
MAX_BYTES = 1 << 30
"""Decoded bytes of the columns of a row group that are always allowed."""
MAX_RATIO = 100
"""Over `MAX_BYTES`, the decoded bytes may be this many times the bytes in the file."""
_FETCH_BYTES = 32 << 20
"""Bytes of row groups that are requested from an object store together."""


class BoundedFile(Seekable):
    """A binary file that checks each column chunk of a Parquet file when it is read.

    Before `bound` anything can be read (the footer). After it, reads must be whole column chunks; reading raises
    ``ValueError`` for a row group over the limits.

    Args:
        file: a raw file, opened for reading. It is closed with this object.
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
        """Start of a chunk -> (bytes, row group, column) of the chunks there."""
        self._leaves: list[Leaf] = []
        self._tail: tuple[int, Any] = (self.size, b"")
        """Start and bytes of the end of the file, as they were read first, so that the footer cannot change between
        reads."""
        self._checked: dict[tuple[int, int], tuple[int, int]] = {}
        """(row group, column) -> bytes of the chunk that were checked, with padding, and the bytes that it takes."""
        self._decoded: dict[int, int] = defaultdict(int)
        """Row group -> decoded bytes of its checked chunks."""
        self._stored: dict[int, int] = defaultdict(int)
        """Row group -> bytes of its checked chunks in the file."""

    def bound(self, metadata: pq.FileMetaData) -> None:
        """Restricts reads to the footer and to whole column chunks of ``metadata``, which are checked from now on."""
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
            self._check_read(at, data)
        return data

    def fetch(self, groups: Sequence[int], columns: Sequence[str]) -> int:
        """Requests columns of the first row groups from an object store together.

        Returns:
            Number of row groups that were read: as many as fit into `_FETCH_BYTES`, at least one. For a local file all
            of them, although nothing is read.
        """
        if self._metadata is None or not isinstance(self._file, RemoteFile):
            return len(groups)
        wanted = leaf_numbers(self._metadata.schema, columns)
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

    def chunk(self, column: pq.ColumnChunkMetaData) -> memoryview:
        """Returns the bytes of a column chunk. Raises the errors of `read`."""
        start, size = chunk_place(column, self.size)
        self.seek(start)
        return memoryview(self.read(size)).cast("B")

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _check_read(self, at: int, data: Any) -> None:
        """Checks the column chunks in ``data``, the bytes from offset ``at``. pyarrow reads one or several adjacent
        chunks."""
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
                    self._check_chunk(group, number, start, view[start - at : start - at + size + PADDING])
                elif start == at:
                    raise ValueError(f"bytes {at} to {end} are read of a column that has {size}")

    def _check_chunk(self, group: int, number: int, start: int, data: memoryview) -> None:
        """Raises ``ValueError`` if a column chunk makes its row group exceed the limits."""
        seen, before = self._checked.get((group, number), (0, 0))
        if len(data) <= seen:
            return
        assert self._metadata is not None
        column, leaf = self._metadata.row_group(group).column(number), self._metadata.schema.column(number)
        stored = self._stored[group] + (0 if seen else column.total_compressed_size)
        left = max(_max_bytes(), MAX_RATIO * stored) - self._decoded[group] + before
        takes, is_certain = decoded_size(data, column, leaf, self._leaves[number], left)
        if takes > left and not is_certain:
            takes = string_bytes(self._metadata, group, number, data, self.size, left)
        if takes > left:
            raise ValueError(
                f"column {column.path_in_schema!r} of row group {group + 1} claims {takes} bytes in memory, "
                f"and has {column.total_compressed_size} in the file; if it is to be trusted, give {VARIABLE}"
            )
        self._checked[group, number] = (len(data), takes)
        self._stored[group] = stored
        self._decoded[group] += takes - before


def _max_bytes() -> int:
    """Returns `MAX_BYTES`, or the value of the environment variable `VARIABLE`."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return MAX_BYTES
    if not given.isdecimal():
        raise ConfigError(VARIABLE, f"found {given!r}", "a number of bytes")
    return int(given)


def _read(file: Any, wanted: int) -> Any:
    """Returns ``wanted`` bytes, fewer at the end of the file. A local file is read into memory of Arrow."""
    if not isinstance(file, io.FileIO):
        return file.read(wanted)
    buffer = pa.allocate_buffer(wanted)
    view, got = memoryview(buffer).cast("B"), 0
    while got < wanted and (more := file.readinto(view[got:])):
        got += more
    return buffer if got == wanted else buffer.slice(0, got)
