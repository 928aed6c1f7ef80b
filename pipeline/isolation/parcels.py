"""Values and a table on their way to another process: written once, into shared memory, and read where they lie.

A parcel is [values, pickled][small columns][big columns], the columns as Arrow IPC streams. The memory is a
file without a name (memfd): no folder's size bounds it, and it goes when the last of its holders goes.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import weakref
from typing import Any

import pyarrow as pa

_SIZES = struct.Struct("<QQQ")
_ALIGN = 64
_BIG_BYTES = 1 << 16
_OVERHEAD_BYTES = 1 << 14
_KEEP_BYTES = 256 << 20
_KEEP = 2


def shared_file(size: int = 0) -> int:
    """File descriptor of a new shared memory of ``size`` zero bytes."""
    fd = os.memfd_create("tessera")
    os.truncate(fd, size)
    return fd


class Segment:
    """Shared memory of one parcel at a time. Any process that holds its file may write it and read it."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = shared_file() if fd is None else fd
        self.memory: mmap.mmap | None = None
        self.close = weakref.finalize(self, os.close, self.fd)

    def write(self, values: Any, table: pa.Table | None = None) -> bytes:
        """Put a parcel here, in place of the one before. Returns the message that its reader needs."""
        if table is None:
            return self._fill(pickle.dumps((values, None), 5), b"", None)
        # Small columns go apart: copied by the reader, those that outlive the big ones hold no shared memory.
        sizes = [column.get_total_buffer_size() for column in table.columns]
        big = [i for i, size in enumerate(sizes) if size >= _BIG_BYTES]
        small = [i for i, size in enumerate(sizes) if size < _BIG_BYTES]
        stream = pa.BufferOutputStream()
        _stream(table.select(small), stream)
        head = pickle.dumps((values, [*small, *big]), 5)
        return self._fill(head, stream.getvalue().to_pybytes(), table.select(big) if big else None)

    def _fill(self, head: bytes, small: bytes, big: pa.Table | None) -> bytes:
        at = [0, _aligned(len(head)), _aligned(len(head)) + _aligned(len(small))]
        need = at[2]
        if big is not None:
            chunks = sum(column.num_chunks for column in big.columns)
            need += big.get_total_buffer_size() + (1 + chunks) * _OVERHEAD_BYTES
        while True:
            memory = self._mapped(need)
            memory[: len(head)] = head
            memory[at[1] : at[1] + len(small)] = small
            if big is None:
                return _SIZES.pack(len(head), len(small), 0)
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory[at[2] :]))
            try:
                _stream(big, sink)
                return _SIZES.pack(len(head), len(small), sink.tell())
            except OSError:  # more metadata than was reckoned with
                need *= 2

    def read(self, message: bytes, pool: Pool | None = None) -> tuple[Any, pa.Table | None]:
        """The parcel's values and table. Big columns lie in the segment: with the last of them it goes to ``pool``."""
        memory, offset, parts = self._mapped(0).toreadonly(), 0, []
        for size in _SIZES.unpack(message):
            parts.append(memory[offset : offset + size])
            offset += _aligned(size)
        values, order = pickle.loads(parts[0])
        tables = [pa.ipc.open_stream(pa.py_buffer(bytes(parts[1]))).read_all()] if order is not None else []
        held = parts[2]
        if len(held):
            tables.append(pa.ipc.open_stream(pa.py_buffer(held)).read_all())
            if pool is not None:
                weakref.finalize(held, pool.give, self).atexit = False
        elif pool is not None:
            pool.give(self)
        return values, _joined(tables, order) if tables else None

    def _mapped(self, need: int) -> memoryview:
        """All of the memory, at least ``need`` bytes. A process keeps its map: new pages cost more than the copy."""
        size = os.fstat(self.fd).st_size
        if size < max(need, 1):
            size = max(need + need // 4, mmap.PAGESIZE)
            os.truncate(self.fd, size)
        if self.memory is None or len(self.memory) < size:
            self.memory = mmap.mmap(self.fd, size)
        return memoryview(self.memory)


class Pool:
    """Segments that are used again."""

    def __init__(self) -> None:
        self.free: list[Segment] = []

    def take(self) -> Segment:
        return self.free.pop() if self.free else Segment()

    def give(self, segment: Segment) -> None:
        """Keep it for the next parcel, unless there are enough or it is a very large one."""
        if len(self.free) < _KEEP and os.fstat(segment.fd).st_size <= _KEEP_BYTES:
            self.free.append(segment)
        else:
            segment.close()


class Known:
    """The other process's segments, as they come through a channel: the same ones, again and again."""

    def __init__(self) -> None:
        self.segments: dict[int, Segment] = {}

    def segment(self, fd: int) -> Segment:
        """The segment whose file ``fd`` is; takes ``fd`` over."""
        place = os.fstat(fd).st_ino
        segment = self.segments.pop(place, None)
        if segment is None:
            segment = Segment(fd)
        else:
            os.close(fd)
        self.segments[place] = segment  # the last: what was used longest ago goes, never the one before this
        if len(self.segments) > 2 * _KEEP:
            self.segments.pop(next(iter(self.segments))).close()
        return segment


def _aligned(size: int) -> int:
    return size + -size % _ALIGN


def _stream(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def _joined(tables: list[pa.Table], order: list[int]) -> pa.Table:
    """One table of the columns of all, each at its place in ``order``."""
    columns = [one for table in tables for one in zip(table.schema, table.columns, strict=True)]
    placed = [one for _, one in sorted(zip(order, columns, strict=True), key=lambda pair: pair[0])]
    schema = pa.schema([field for field, _ in placed], tables[0].schema.metadata)
    return pa.Table.from_arrays([column for _, column in placed], schema=schema)
