"""A Parquet file of a manifest whose page headers are checked before pyarrow decodes the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipeline.core.seekable import Seekable
from pipeline.parquet.decoded_size import string_bytes
from pipeline.parquet.pages import DICTIONARY, PADDING, chunk_place, pages, shared_bytes

MAX_CHUNK_BYTES = 2 << 30
"""Maximum size of a column chunk in the file: pyarrow reads it into memory as a whole."""


@dataclass
class Chunk:
    """Sizes of a column chunk: one column of one row group."""

    path: str
    values: int
    """Number of values in all pages; more than the rows if values are nested."""
    size: int
    """Bytes in the file."""
    page_bytes: int
    """The largest page, decompressed."""
    value_bytes: int
    """Upper bound of a value that many rows can share: a value of a dictionary, or a prefix."""


class CheckedFile(Seekable):
    """A binary file whose column chunks are checked before pyarrow reads them.

    `load_chunk` reads a chunk and its page headers. After the first call, `read` returns loaded chunks only, and each
    of them once.
    """

    size: int

    def __init__(self, file: Any) -> None:
        super().__init__(int(file.seek(0, 2) or file.tell()))
        self.file = file
        self.ready: dict[int, bytes] | None = None
        """Start of a loaded chunk -> its bytes. None: no chunk was loaded yet, and anything can be read (the
        footer)."""

    def load_chunk(self, metadata: pq.FileMetaData, group: int, number: int) -> Chunk:
        """Reads column ``number`` of row group ``group``, and parses its page headers.

        Raises:
            ValueError: the sizes in the footer or in a page header are impossible.
        """
        column = metadata.row_group(group).column(number)
        start, size = chunk_place(column, self.size)
        if size > MAX_CHUNK_BYTES:
            raise ValueError(
                f"column {column.path_in_schema!r} has {size} bytes in row group {group + 1}, over {MAX_CHUNK_BYTES}: "
                "write smaller row groups"
            )
        self.file.seek(start)
        data = self.file.read(min(size + PADDING, self.size - start))
        self.ready = self.ready or {}
        self.ready[start] = data
        found = pages(data, column.num_values)
        return Chunk(
            path=column.path_in_schema,
            values=sum(page.values for page in found if page.kind != DICTIONARY),
            size=size,
            page_bytes=max((page.uncompressed for page in found), default=0),
            value_bytes=max((shared_bytes(page, data, column, small=0) for page in found), default=0),
        )

    def string_bytes(self, metadata: pq.FileMetaData, group: int, number: int, most: int) -> int:
        """Returns the bytes of all strings of a loaded chunk; any number over ``most`` if there are more than that."""
        assert self.ready is not None
        start, _ = chunk_place(metadata.row_group(group).column(number), self.size)
        return string_bytes(metadata, group, number, self.ready[start], self.size, most)

    def read(self, size: int | None = -1) -> Any:
        wanted = self.wanted(size)
        if self.ready is None:
            self.file.seek(self.at)
            data = self.file.read(wanted)
        elif wanted == 0:
            data = b""
        else:
            held = self.ready.pop(self.at, b"")
            if len(held) < wanted:
                raise ValueError(f"bytes {self.at} to {self.at + wanted} are read that no column was said to have")
            data = held if len(held) == wanted else memoryview(held)[:wanted]
        self.at += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()
