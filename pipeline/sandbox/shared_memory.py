"""Values and a table on their way to another process: written once, into shared memory, and read where they lie.

A buffer is [arrays][values, pickled][small columns][big columns], the columns in Arrow's IPC format. What is large is
allocated here before it is filled (`SharedBuffer.empty`) and not copied; columns that the reader has already are not
sent, nor is a schema read twice. Both ends find their caches cold each time, so what counts is how little is called.
The memory is a file without a name (memfd): no folder's size bounds it, and it goes when the last of its holders goes.
"""

from __future__ import annotations

import functools
import mmap
import os
import pickle
import struct
import weakref
from typing import Any

import numpy as np
import pyarrow as pa

_SIZES = struct.Struct("<QQQQ")
_ALIGN = 64
_BIG_BYTES = 1 << 16
_OVERHEAD_BYTES = 1 << 14
_KEEP_BYTES = 256 << 20
_KEEP = 2
_KEEP_SCHEMAS = 8


def shared_file(size: int = 0) -> int:
    """File descriptor of a new shared memory of ``size`` zero bytes."""
    fd = os.memfd_create("tessera")
    os.truncate(fd, size)
    return fd


class SharedBuffer:
    """Shared memory of one parcel at a time. Any process that holds its file may write it and read it."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = shared_file() if fd is None else fd
        self.memory: mmap.mmap | None = None
        self.filled = 0
        self.maps: list[tuple[int, int, mmap.mmap]] = []
        self.close = weakref.finalize(self, os.close, self.fd)

    def empty(self, size: int, dtype: np.dtype[Any]) -> np.ndarray:
        """An array for a column of the next parcel; it lies here if it is large."""
        size_bytes = size * dtype.itemsize
        if size_bytes < _BIG_BYTES:
            return np.empty(size, dtype)
        start = self.filled
        self.filled = _aligned(start + size_bytes)
        return np.frombuffer(self._mapped(self.filled), dtype, size, start)

    def write(self, values: Any, table: pa.Table | None = None, known: pa.Table | None = None) -> bytes:
        """Put a parcel here, in place of the one before. Returns the message that its reader needs.

        ``known``: a table that the reader has too, to which ``read`` adds what is new.
        """
        if table is None:
            return self._fill(pickle.dumps((values, None), 5), b"", None)
        same, kept = _same(table, known)
        # Small columns go apart: copied by the reader, those that outlive the big ones hold no shared memory.
        new = [i for i in range(table.num_columns) if i not in same]
        sizes = dict.fromkeys(new, 0)
        if self.filled or table.get_total_buffer_size() >= _BIG_BYTES:
            sizes = {i: table.column(i).get_total_buffer_size() for i in new}
        here = {i: self._laid_out(table.column(i)) for i, size in sizes.items() if size >= _BIG_BYTES and self.filled}
        here = {i: layout for i, layout in here.items() if layout is not None}
        big = [i for i, size in sizes.items() if size >= _BIG_BYTES and i not in here]
        small = [i for i, size in sizes.items() if size < _BIG_BYTES]
        place = {i: at for at, i in enumerate([*same, *small, *here, *big])}
        order = [place[i] for i in range(len(place))]
        arrays = (_serialized(table.select(list(here)).schema)[1], list(here.values())) if here else None
        schema, data = _written(table.select(small))
        head = pickle.dumps((values, (kept, order, schema, arrays)), 5)
        return self._fill(head, data, table.select(big) if big else None)

    def _laid_out(self, column: pa.ChunkedArray) -> _Layout | None:
        """How ``column`` can be told; None if a large part of it is elsewhere, or if it is no array of ``empty``."""
        return self._layout(column.chunk(0)) if column.num_chunks == 1 else None

    def _layout(self, array: pa.Array) -> _Layout | None:
        type_ = array.type
        if array.offset:
            return None
        if pa.types.is_struct(type_):
            children = [array.field(i) for i in range(type_.num_fields)]
        elif pa.types.is_list(type_) or pa.types.is_large_list(type_):
            children = [array.values]
        elif pa.types.is_primitive(type_):
            children = []
        else:
            return None
        buffers: list[bytes | tuple[int, int] | None] = []
        for buffer in array.buffers()[: type_.num_buffers]:
            offset = None if buffer is None else self._offset(buffer.address)
            if buffer is not None and offset is None and buffer.size >= _BIG_BYTES:
                return None
            buffers.append(None if buffer is None else buffer.to_pybytes() if offset is None else (offset, buffer.size))
        below: list[_Layout] = []
        for child in children:
            layout = self._layout(child)
            if layout is None:
                return None
            below.append(layout)
        return len(array), buffers, below

    def _offset(self, address: int) -> int | None:
        """Where in the arrays of ``empty`` this address lies."""
        return next((address - start for start, size, _ in self.maps if 0 <= address - start < size), None)

    def _fill(self, head: bytes, small: bytes, big: pa.Table | None) -> bytes:
        start, self.filled = self.filled, 0
        self.maps = self.maps[-1:]  # an address that is unmapped may be anything's soon
        at = [start, start + _aligned(len(head)), start + _aligned(len(head)) + _aligned(len(small))]
        need = at[2]
        if big is not None:
            chunks = sum(column.num_chunks for column in big.columns)
            need += big.get_total_buffer_size() + (1 + chunks) * _OVERHEAD_BYTES
        while True:
            memory = self._mapped(need)
            memory[start : start + len(head)] = head
            memory[at[1] : at[1] + len(small)] = small
            if big is None:
                return _SIZES.pack(start, len(head), len(small), 0)
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory[at[2] :]))
            try:
                _stream(big, sink)
                return _SIZES.pack(start, len(head), len(small), sink.tell())
            except OSError:  # more metadata than was reckoned with
                need *= 2

    def read(
        self, message: bytes, pool: BufferPool | None = None, known: pa.Table | None = None
    ) -> tuple[Any, pa.Table | None]:
        """The parcel's values and table. Big columns lie in the segment: with the last of them it goes to ``pool``."""
        held = self._mapped(0).toreadonly()
        start, head, small, big = _SIZES.unpack(message)
        values, told = pickle.loads(held[start : start + head])
        tables: list[pa.Table] = []
        memory = pa.py_buffer(held)
        if told is not None:
            kept, order, schema, arrays = told
            if known is not None and kept:
                tables.append(known.select(kept))
            at = start + _aligned(head)
            tables.append(_read(schema, bytes(held[at : at + small])))
            if arrays is not None:
                words, layouts = arrays
                here = _schema(words)
                columns = [_array(one, layout, memory) for one, layout in zip(here.types, layouts, strict=True)]
                tables.append(pa.Table.from_arrays(columns, schema=here))
            if big:
                tables.append(pa.ipc.open_stream(memory.slice(at + _aligned(small), big)).read_all())
        if pool is not None:  # once nothing holds a view of it
            weakref.finalize(held, pool.give, self).atexit = False
        return values, _joined(tables, order) if tables else None

    def _mapped(self, need: int) -> memoryview:
        """All of the memory, at least ``need`` bytes. A process keeps its map: new pages cost more than the copy."""
        size = os.fstat(self.fd).st_size
        if size < max(need, 1):
            size = max(need + need // 4, mmap.PAGESIZE)
            os.truncate(self.fd, size)
        if self.memory is None or len(self.memory) < size:
            self.memory = mmap.mmap(self.fd, size)
            start = np.frombuffer(self.memory, np.uint8).ctypes.data
            self.maps = [*(self.maps if self.filled else ()), (start, size, self.memory)]
        return memoryview(self.memory)


class BufferPool:
    """Segments that are used again."""

    def __init__(self) -> None:
        self.free: list[SharedBuffer] = []

    def take(self) -> SharedBuffer:
        return self.free.pop() if self.free else SharedBuffer()

    def give(self, segment: SharedBuffer) -> None:
        """Keep it for the next parcel, unless there are enough or it is a very large one."""
        if len(self.free) < _KEEP and os.fstat(segment.fd).st_size <= _KEEP_BYTES:
            self.free.append(segment)
        else:
            segment.close()


class BufferCache:
    """The other process's segments, as they come through a channel: the same ones, again and again."""

    def __init__(self) -> None:
        self.segments: dict[int, SharedBuffer] = {}

    def segment(self, fd: int) -> SharedBuffer:
        """The segment whose file ``fd`` is; takes ``fd`` over."""
        place = os.fstat(fd).st_ino
        segment = self.segments.pop(place, None)
        if segment is None:
            segment = SharedBuffer(fd)
        else:
            os.close(fd)
        self.segments[place] = segment  # the last: what was used longest ago goes, never the one before this
        if len(self.segments) > 2 * _KEEP:
            self.segments.pop(next(iter(self.segments))).close()
        return segment

    def drop_large(self) -> None:
        """After an answer: the other side keeps no very large one either."""
        for place, segment in list(self.segments.items()):
            if os.fstat(segment.fd).st_size > _KEEP_BYTES:
                self.segments.pop(place).close()


def _aligned(size: int) -> int:
    return size + -size % _ALIGN


_Layout = tuple[int, list[bytes | tuple[int, int] | None], list[Any]]
"""Of an array: its length, its buffers (or where in the segment they lie), the layouts of those it is made of."""


def _array(type_: pa.DataType, layout: _Layout, memory: pa.Buffer) -> pa.Array:
    length, buffers, below = layout
    children = [_array(type_.field(i).type, child, memory) for i, child in enumerate(below)]
    parts = [
        None if one is None else pa.py_buffer(one) if isinstance(one, bytes) else memory.slice(*one) for one in buffers
    ]
    return pa.Array.from_buffers(type_, length, parts, children=children)


def _written(table: pa.Table) -> tuple[bytes | None, bytes]:
    """Its schema's words and its one batch; or None and a stream, for all that one batch does not tell."""
    batches = table.to_batches()
    _, words, text = _serialized(table.schema)
    if len(batches) == 1 and "dictionary" not in text and "extension" not in text:
        return words, batches[0].serialize().to_pybytes()
    stream = pa.BufferOutputStream()
    _stream(table, stream)
    return None, stream.getvalue().to_pybytes()


def _read(schema: bytes | None, data: bytes) -> pa.Table:
    if schema is None:
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(data), _schema(schema))])


_lately: list[tuple[pa.Schema, bytes, str]] = []


def _serialized(schema: pa.Schema) -> tuple[pa.Schema, bytes, str]:
    """``schema``, in Arrow's format and as text."""
    for one in _lately:
        if one[0].equals(schema, check_metadata=True):
            return one
    new = (schema, schema.serialize().to_pybytes(), str(schema))
    _lately.append(new)
    del _lately[:-_KEEP_SCHEMAS]
    return new


@functools.lru_cache(_KEEP_SCHEMAS)
def _schema(words: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(words))


def _stream(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def _same(table: pa.Table, known: pa.Table | None) -> tuple[list[int], list[int]]:
    """Which columns of ``table`` are columns of ``known``, and which of those each is."""
    if known is None:
        return [], []
    places = {name: i for i, name in enumerate(known.schema.names)}
    pairs = [(i, places[name]) for i, name in enumerate(table.schema.names) if name in places]
    ours, theirs = table.columns, known.columns
    pairs = [(i, j) for i, j in pairs if ours[i].equals(theirs[j])]  # at once, if it is the same object
    return [i for i, _ in pairs], [j for _, j in pairs]


def _joined(tables: list[pa.Table], order: list[int]) -> pa.Table:
    """One table of the columns of all, in ``order``. As few calls as can be: with cold caches each is dear."""
    joined, *others = tables
    for table in others:
        for field, column in zip(table.schema, table.columns, strict=True):
            joined = joined.append_column(field, column)
    return joined.select(order)
