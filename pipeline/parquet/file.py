"""Opens Parquet files, which may be untrusted, without extension types.

A Parquet file may contain an Arrow schema that names extension types. Libraries register such types in pyarrow, and
some unpickle data of the file: `ray.data` unpickles values, and older versions also the parameters of the type, which
pyarrow reads when it opens the file. To prevent that, the key that names an extension type is renamed in the footer
before pyarrow reads the schema. The column then has its storage type (bytes for pickled objects).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet.bounded_file import BoundedFile
from pipeline.parquet.regular_lists import ListColumn, decode_regular_lists

MAX_FOOTER_BYTES = 32 << 20
"""Maximum size of a footer. pyarrow takes up to 80 times as much memory for it."""
MAX_LIST = 200_000
"""Maximum number of row groups, and of columns. A tiny file may claim any number, for which pyarrow allocates
memory."""
_PIECE_VALUES = 1 << 20
"""Values of a column that are decoded together. pyarrow holds the levels of all of them, four bytes for each."""
_MISSES = 2
"""If lists of a column were not regular so often more than they were, it is left to pyarrow."""
_TAIL_BYTES = 1 << 16
"""Bytes at the end of a file that are read first; most footers are smaller."""
_MAGIC = b"PAR1"
_SCHEMA, _RENAMED_SCHEMA = b"ARROW:schema", b"ARROW:Schema"
"""Key of the Arrow schema in a footer, and a key of the same length that pyarrow ignores."""
_EXTENSION, STORED_EXTENSION = b"ARROW:extension:name", b"ARROW:extension_name"
"""Key of a field's metadata that pyarrow reads, and the key of the same length that it is renamed to."""


@dataclass(frozen=True)
class Footer:
    """Metadata of a file, without extension types."""

    metadata: pq.FileMetaData
    as_storage: bool
    """Whether the file names extension types, which other readers of it would load."""


class ParquetFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An open Parquet file that can request several row groups together."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, **options)
        self._source = source

    def read_group(self, group: int, columns: Sequence[str], tries: dict[str, int] | None = None) -> pa.Table:
        """Returns columns of one row group, in their order. Those of `regular_lists` are decoded faster.

        Args:
            group: its number.
            columns: names.
            tries: for files whose columns are alike, to be given for all of them: name -> how often the faster way was
                possible, less how often not.

        Raises the errors of pyarrow, and ``ValueError`` for a row group over the limits of `BoundedFile`.
        """
        tries = {} if tries is None else tries
        decoded = {name: self._regular(group, name, tries) for name in columns}
        others = [name for name in columns if decoded[name] is None]
        if len(others) == len(columns):
            return self._in_pieces(group, others).select(columns)
        table = self._in_pieces(group, others) if others else None
        arrays = [table[name] if table is not None and name in others else decoded[name] for name in columns]
        return pa.table(arrays, schema=pa.schema([self._schema.field(name) for name in columns]))

    def _in_pieces(self, group: int, columns: list[str]) -> pa.Table:
        """Returns columns of a row group. Many values are decoded in pieces: in less memory, and as fast."""
        row_group = self.metadata.row_group(group)
        leaves = [number for name in columns for number in self._leaves.get(name, [])]
        values = max((row_group.column(leaf).num_values for leaf in leaves), default=0)
        if values <= _PIECE_VALUES:
            return self.read_row_groups([group], columns=columns, use_threads=False)
        rows = max(1, row_group.num_rows * _PIECE_VALUES // values)
        return pa.Table.from_batches(
            list(self.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False))
        )

    def _regular(self, group: int, name: str, tries: dict[str, int]) -> pa.Array | None:
        """Returns a column of lists of equal lengths; None if it is another one, or is likely to be."""
        layout, leaves = self._layouts.get(name), self._leaves.get(name, [])
        if layout is None or tries.get(name, 0) < -_MISSES or not isinstance(self._source, BoundedFile):
            return None
        row_group = self.metadata.row_group(group)
        chunk = row_group.column(leaves[0])
        found = None
        if not chunk.has_dictionary_page:
            found = decode_regular_lists(self._source.chunk(chunk), chunk, layout, row_group.num_rows)
        tries[name] = tries.get(name, 0) + (1 if found is not None else -1)
        return found

    @cached_property
    def _schema(self) -> pa.Schema:
        return self.schema_arrow

    @cached_property
    def _leaves(self) -> dict[str, list[int]]:
        """Name of a column -> its numbers in the Parquet schema."""
        found: dict[str, list[int]] = {}
        for number in range(len(self.metadata.schema)):
            name = self.metadata.schema.column(number).path.split(".")[0]
            found.setdefault(name, []).append(number)
        return found

    @cached_property
    def _layouts(self) -> dict[str, ListColumn]:
        """Name -> layout of the columns that may have lists of equal lengths."""
        found = {}
        for field in self._schema:
            leaves = self._leaves.get(field.name, [])
            if len(leaves) == 1 and self._schema.names.count(field.name) == 1:
                layout = ListColumn.of(field.type, self.metadata.schema.column(leaves[0]))
                if layout is not None:
                    found[field.name] = layout
        return found

    def parts(self, groups: Sequence[int], columns: Sequence[str]) -> Iterator[list[int]]:
        """Yields ``groups`` in parts. The caller reads each part before it takes the next one.

        For a file on an object store, the columns of a part are requested together, and held until the next part.
        """
        left = list(groups)
        while left:
            count = self._source.fetch(left, columns) if isinstance(self._source, BoundedFile) else len(left)
            yield left[:count]
            left = left[count:]
        if isinstance(self._source, BoundedFile):
            self._source.fetch([], [])  # the file may stay open


def open_parquet(source: Any, metadata: pq.FileMetaData | None = None) -> ParquetFile:
    """Opens the Parquet file in ``source``, a seekable binary file or a file of Arrow.

    With ``metadata``, that of the same file opened before, the footer is not read again.

    Columns of extension types, also nested ones, have their storage types. The columns of a `BoundedFile` are read
    within its limits.

    pyarrow reads a Python file in threads of its own if it reads ahead or is to use threads. Such a thread that
    releases a buffer while the interpreter ends aborts the process (pyarrow 26), so nothing is read ahead here, and the
    caller gives ``use_threads=False``.

    Raises:
        pa.ArrowInvalid: not a Parquet file, or a footer over a limit.
        pa.ArrowException, OSError: pyarrow cannot read the file.
    """
    if metadata is None:
        metadata = read_footer(source).metadata
    elif isinstance(source, BoundedFile):
        source.bound(metadata)
    return ParquetFile(source, metadata=metadata, pre_buffer=False, arrow_extensions_enabled=False)


def read_footer(source: Any) -> Footer:
    """Reads the footer of ``source``. Raises the errors of `open_parquet`."""
    footer = _footer(_footer_bytes(source))
    if isinstance(source, BoundedFile):
        source.bound(footer.metadata)
    return footer


def _footer(data: bytes) -> Footer:
    """Parses the bytes of a footer, with extension types renamed."""
    if data.count(_SCHEMA) == 0:
        return Footer(_metadata(data), as_storage=False)
    # pyarrow parses the value itself, so that the footer cannot have another meaning for it
    hidden = _metadata(data.replace(_SCHEMA, _RENAMED_SCHEMA))
    value = (hidden.metadata or {}).get(_RENAMED_SCHEMA)
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
    """Returns the bytes of the footer. Raises ``pa.ArrowInvalid``."""
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
    """Parses the bytes of a footer, as a file that consists of the footer only."""
    content = pa.py_buffer(_MAGIC + footer + len(footer).to_bytes(4, "little") + _MAGIC)
    file = pq.ParquetFile(
        pa.BufferReader(content), arrow_extensions_enabled=False, thrift_container_size_limit=MAX_LIST
    )
    return file.metadata


def _decoded(value: bytes) -> bytes | None:
    """Returns the decoded Arrow schema; None if another base64 parser could decode it differently."""
    try:
        schema = base64.b64decode(value, validate=True)
    except binascii.Error:
        return None
    return schema if base64.b64encode(schema) == value else None
