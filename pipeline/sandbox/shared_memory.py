"""Passes Python values and a table to another process through shared memory, without copies of large columns.

A message in a buffer has four sections: [arrays][values, pickled][small columns][big columns]. The columns are in
Arrow's IPC format. Large arrays are allocated in the buffer before they are filled (`SharedBuffer.empty`), so they are
not copied. Columns that the reader already has are not sent, and no schema is read twice. Both processes run with cold
CPU caches at each message, so the number of calls matters most.

The memory is a file without a name (memfd): the size of no file system bounds it, and the kernel frees it when no
process has it open.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import weakref
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.sandbox._table_format import (
    BIG_BYTES,
    aligned,
    build_array,
    column_layout,
    deserialize_schema,
    deserialize_table,
    join_columns,
    serialize_schema,
    serialize_table,
    shared_columns,
    write_stream,
)

_SECTIONS = struct.Struct("<QQQQ")
"""Bytes of the four sections: the message that the reader receives."""
_OVERHEAD_BYTES = 1 << 14
"""Estimated metadata of the schema, and of each chunk, in an IPC stream."""
_KEEP_BYTES = 256 << 20
"""Larger buffers are closed after use."""
_KEEP = 2
"""Free buffers that a pool keeps."""


def shared_file(size_bytes: int = 0) -> int:
    """Creates shared memory of ``size_bytes`` zero bytes. Returns its file descriptor."""
    fd = os.memfd_create("tessera")
    os.truncate(fd, size_bytes)
    return fd


class SharedBuffer:
    """Shared memory with one message at a time. Each process that has its file open may write and read it.

    Args:
        fd: descriptor of an existing buffer, owned by this object from now on; None: a new one is created.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = shared_file() if fd is None else fd
        self.memory: mmap.mmap | None = None
        self.filled = 0
        """Bytes that `empty` has allocated for the next message."""
        self.maps: list[tuple[int, int, mmap.mmap]] = []
        """Address, size in bytes and map, for each map with arrays of the next message, and for the current one."""
        self.close = weakref.finalize(self, os.close, self.fd)

    def empty(self, size: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Returns an uninitialized array [size] for a column of the next message; in the buffer if it is large."""
        size_bytes = size * dtype.itemsize
        if size_bytes < BIG_BYTES:
            return np.empty(size, dtype)
        start = self.filled
        self.filled = aligned(start + size_bytes)
        return np.frombuffer(self._view(self.filled), dtype, size, start)

    def write(self, values: Any, table: pa.Table | None = None, known: pa.Table | None = None) -> bytes:
        """Writes a message, in place of the last one.

        Args:
            values: anything that can be pickled.
            table: the table, if any.
            known: a table that the reader also has, and passes to ``read``: equal columns of it are not written.

        Returns:
            the sizes of the sections, which the reader passes to ``read``.
        """
        if table is None:
            return self._write_sections(pickle.dumps((values, None), 5), b"", None)
        same, known_indices = shared_columns(table, known)
        # Small columns are separate: the reader copies them, so that those that outlive the big ones do not keep the
        # buffer in use.
        new = [i for i in range(table.num_columns) if i not in same]
        sizes = dict.fromkeys(new, 0)
        if self.filled or table.get_total_buffer_size() >= BIG_BYTES:
            sizes = {i: table.column(i).get_total_buffer_size() for i in new}
        layouts = {
            i: layout
            for i, size in sizes.items()
            if size >= BIG_BYTES
            and self.filled
            and (layout := column_layout(table.column(i), self._offset)) is not None
        }
        big = [i for i, size in sizes.items() if size >= BIG_BYTES and i not in layouts]
        small = [i for i, size in sizes.items() if size < BIG_BYTES]
        sent_indices = {i: sent for sent, i in enumerate([*same, *small, *layouts, *big])}
        order = [sent_indices[i] for i in range(len(sent_indices))]
        arrays = None
        if layouts:
            arrays = (serialize_schema(table.select(list(layouts)).schema)[1], list(layouts.values()))
        schema_bytes, small_data = serialize_table(table.select(small))
        head = pickle.dumps((values, (known_indices, order, schema_bytes, arrays)), 5)
        return self._write_sections(head, small_data, table.select(big) if big else None)

    def _offset(self, address: int) -> int | None:
        """Returns the offset in this buffer of an address in memory; None if the address is outside."""
        return next((address - start for start, size, _ in self.maps if 0 <= address - start < size), None)

    def _write_sections(self, head: bytes, small_data: bytes, big: pa.Table | None) -> bytes:
        """Writes the last three sections behind the arrays. Returns the sizes of all four."""
        start, self.filled = self.filled, 0
        self.maps = self.maps[-1:]  # other memory may soon be mapped at an address that is unmapped
        small_start = start + aligned(len(head))
        big_start = small_start + aligned(len(small_data))
        need = big_start
        if big is not None:
            chunks = sum(column.num_chunks for column in big.columns)
            need += big.get_total_buffer_size() + (1 + chunks) * _OVERHEAD_BYTES
        while True:
            memory = self._view(need)
            memory[start : start + len(head)] = head
            memory[small_start : small_start + len(small_data)] = small_data
            if big is None:
                return _SECTIONS.pack(start, len(head), len(small_data), 0)
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory[big_start:]))
            try:
                write_stream(big, sink)
                return _SECTIONS.pack(start, len(head), len(small_data), sink.tell())
            except OSError:  # more metadata than estimated
                need *= 2

    def read(
        self, message: bytes, pool: BufferPool | None = None, known: pa.Table | None = None
    ) -> tuple[Any, pa.Table | None]:
        """Reads a message. Big columns of the table are views of this buffer.

        Args:
            message: what ``write`` returned.
            pool: takes this buffer when no view of it exists any more.
            known: what was passed to ``write``.

        Returns:
            the values and the table.
        """
        view = self._view(0).toreadonly()
        start, head_size, small_size, big_size = _SECTIONS.unpack(message)
        values, columns = pickle.loads(view[start : start + head_size])
        tables: list[pa.Table] = []
        memory = pa.py_buffer(view)
        if columns is not None:
            known_indices, order, schema_bytes, arrays = columns
            if known is not None and known_indices:
                tables.append(known.select(known_indices))
            small_start = start + aligned(head_size)
            tables.append(deserialize_table(schema_bytes, bytes(view[small_start : small_start + small_size])))
            if arrays is not None:
                array_schema_bytes, layouts = arrays
                schema = deserialize_schema(array_schema_bytes)
                built = [
                    build_array(type_, layout, memory) for type_, layout in zip(schema.types, layouts, strict=True)
                ]
                tables.append(pa.Table.from_arrays(built, schema=schema))
            if big_size:
                big_start = small_start + aligned(small_size)
                tables.append(pa.ipc.open_stream(memory.slice(big_start, big_size)).read_all())
        if pool is not None:
            weakref.finalize(view, pool.give, self).atexit = False
        return values, join_columns(tables, order) if tables else None

    def _view(self, need_bytes: int) -> memoryview:
        """Returns all of the memory, at least ``need_bytes``.

        The map is kept: to map new pages takes longer than to copy the data.
        """
        size = os.fstat(self.fd).st_size
        if size < max(need_bytes, 1):
            size = max(need_bytes + need_bytes // 4, mmap.PAGESIZE)
            os.truncate(self.fd, size)
        if self.memory is None or len(self.memory) < size:
            self.memory = mmap.mmap(self.fd, size)
            start = np.frombuffer(self.memory, np.uint8).ctypes.data
            self.maps = [*(self.maps if self.filled else ()), (start, size, self.memory)]
        return memoryview(self.memory)


class BufferPool:
    """Free buffers that can be used again."""

    def __init__(self) -> None:
        self.free: list[SharedBuffer] = []

    def take(self) -> SharedBuffer:
        """Returns a free buffer, or a new one."""
        try:
            return self.free.pop()
        except IndexError:
            return SharedBuffer()

    def give(self, buffer: SharedBuffer) -> None:
        """Takes a buffer back; closes it if the pool has enough, or if it is very large."""
        if len(self.free) < _KEEP and os.fstat(buffer.fd).st_size <= _KEEP_BYTES:
            self.free.append(buffer)
        else:
            buffer.close()


class BufferCache:
    """The buffers of the other process, found again by their file: it sends the same few with each message."""

    def __init__(self) -> None:
        self.buffers: dict[int, SharedBuffer] = {}
        """By inode, the least recently used one first."""

    def get(self, fd: int) -> SharedBuffer:
        """Returns the buffer of the file ``fd``, and takes ownership of ``fd``."""
        inode = os.fstat(fd).st_ino
        buffer = self.buffers.pop(inode, None)
        if buffer is None:
            buffer = SharedBuffer(fd)
        else:
            os.close(fd)
        self.buffers[inode] = buffer  # last, so that the other buffer of the same message is never the one to go
        if len(self.buffers) > 2 * _KEEP:
            self.buffers.pop(next(iter(self.buffers))).close()
        return buffer

    def drop_large(self) -> None:
        """Closes very large buffers after a reply, as the pool of the other process does."""
        for inode, buffer in list(self.buffers.items()):
            if os.fstat(buffer.fd).st_size > _KEEP_BYTES:
                self.buffers.pop(inode).close()
