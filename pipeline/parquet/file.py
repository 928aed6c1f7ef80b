"""Parquet files that somebody else may have written: every one is opened here.

A Parquet file may carry an Arrow schema that names extension types. Libraries register such types in pyarrow, and some
unpickle what a file holds: `ray.data` its values, older versions of it also the type's parameters, which pyarrow reads
when it opens the file. So a registered type is never looked up: before pyarrow sees the schema, the key that names an
extension type is renamed in the footer, and the column has its storage type (for pickled objects: bytes).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet.bounded_file import BoundedFile

MAX_FOOTER_BYTES = 32 << 20
"""pyarrow makes up to 80 times as much memory of it."""
MAX_LIST = 200_000
"""Of row groups, of columns. A file of a few bytes may claim any number, for which pyarrow makes room."""
_TAIL_BYTES = 1 << 16
_MAGIC = b"PAR1"
_SCHEMA, _NO_SCHEMA = b"ARROW:schema", b"ARROW:Schema"
_EXTENSION, STORED_EXTENSION = b"ARROW:extension:name", b"ARROW:extension_name"
"""Keys of a field's metadata, of one length: what pyarrow looks for, and what it is renamed to."""


@dataclass(frozen=True)
class Footer:
    """A file's metadata, in which no extension type is left."""

    metadata: pq.FileMetaData
    as_storage: bool
    """Whether the file names extension types, so that other readers of it would look them up."""


class File(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An open Parquet file that knows its source."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, **options)
        self._source = source

    def parts(self, groups: Sequence[int], columns: Sequence[str]) -> Iterator[list[int]]:
        """Yields ``groups`` in parts, to be read before the next one: of a file on an object store, the columns of a
        part have been fetched together then."""
        left = list(groups)
        while left:
            count = self._source.fetch(left, columns) if isinstance(self._source, BoundedFile) else len(left)
            yield left[:count]
            left = left[count:]


def open_parquet(source: Any) -> File:
    """The Parquet file in ``source``, a seekable binary file or one of Arrow's.

    Columns of extension types, also nested ones, have their storage types. Those of a `BoundedFile` are read within its
    bounds.

    Raises:
        pa.ArrowInvalid: it is no Parquet file, or its footer is over a bound.
        pa.ArrowException, OSError: as pyarrow does.
    """
    metadata = read_footer(source).metadata
    return File(source, metadata=metadata, pre_buffer=False, arrow_extensions_enabled=False)


def read_footer(source: Any) -> Footer:
    """Reads the end of ``source``. Raises as `open_parquet` does."""
    footer = _footer(_footer_bytes(source))
    if isinstance(source, BoundedFile):
        source.bound(footer.metadata)
    return footer


def _footer(data: bytes) -> Footer:
    if data.count(_SCHEMA) == 0:
        return Footer(_metadata(data), as_storage=False)
    # pyarrow's own parser says what the value is, so that nothing in the footer can mean two things
    hidden = _metadata(data.replace(_SCHEMA, _NO_SCHEMA))
    value = (hidden.metadata or {}).get(_NO_SCHEMA)
    if data.count(_SCHEMA) > 1 or value is None:
        return Footer(hidden, as_storage=True)
    schema = _decoded(value)
    if schema is None:
        return Footer(hidden, as_storage=True)
    if _EXTENSION not in schema:
        return Footer(_metadata(data), as_storage=False)
    stored = base64.b64encode(schema.replace(_EXTENSION, STORED_EXTENSION))
    return Footer(_metadata(data.replace(value, stored)), as_storage=True)


def _footer_bytes(source: Any) -> bytes:
    size = source.seek(0, 2)
    size = source.tell() if size is None else size
    if size < 12:
        raise pa.ArrowInvalid(f"no Parquet file: {size} bytes")
    source.seek(max(0, size - _TAIL_BYTES))
    tail = bytes(source.read(min(size, _TAIL_BYTES)))
    if tail[-4:] != _MAGIC:
        raise pa.ArrowInvalid("no Parquet file: its last bytes are not PAR1, or it is encrypted")
    length = int.from_bytes(tail[-8:-4], "little")
    if length > min(MAX_FOOTER_BYTES, size - 8):
        raise pa.ArrowInvalid(f"its footer claims {length} bytes; at most {min(MAX_FOOTER_BYTES, size - 8)} are read")
    if length + 8 > len(tail):
        source.seek(size - 8 - length)
        tail = bytes(source.read(length + 8))
    return tail[-8 - length : -8]


def _metadata(footer: bytes) -> pq.FileMetaData:
    """A file that is nothing but this footer has the same metadata."""
    alone = pa.py_buffer(_MAGIC + footer + len(footer).to_bytes(4, "little") + _MAGIC)
    file = pq.ParquetFile(pa.BufferReader(alone), arrow_extensions_enabled=False, thrift_container_size_limit=MAX_LIST)
    return file.metadata


def _decoded(value: bytes) -> bytes | None:
    """The Arrow schema; None if another parser than ours may decode it in another way."""
    try:
        schema = base64.b64decode(value, validate=True)
    except binascii.Error:
        return None
    return schema if base64.b64encode(schema) == value else None
