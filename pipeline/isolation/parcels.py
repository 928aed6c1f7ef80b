"""Values and a table on their way to another process: written once, into shared memory, and read where they lie.

A parcel is [arrays][values, pickled][small columns][big columns], the columns as Arrow IPC streams. What is large is
allocated here before it is filled (`Segment.empty`) and not copied; columns that the reader has already do not travel.
The memory is a file without a name (memfd): no folder's size bounds it, and it goes when the last of its holders goes.
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

_SIZES = struct.Struct("<QQQQ")
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
        if table.get_total_buffer_size() >= _BIG_BYTES:
            sizes = {i: table.column(i).get_total_buffer_size() for i in new}
        here = [i for i, size in sizes.items() if size >= _BIG_BYTES and self._is_here(table.column(i), size)]
        big = [i for i, size in sizes.items() if size >= _BIG_BYTES and i not in here]
        small = [i for i, size in sizes.items() if size < _BIG_BYTES]
        stream = pa.BufferOutputStream()
        _stream(table.select(small), stream)
        place = {i: at for at, i in enumerate([*same, *small, *here, *big])}
        order = [place[i] for i in range(len(place))]
        head = pickle.dumps((values, (kept, order, self._described(table.select(here)) if here else None)), 5)
        return self._fill(head, stream.getvalue().to_pybytes(), table.select(big) if big else None)

    def _is_here(self, column: pa.ChunkedArray, size: int) -> bool:
        """Whether all but little of ``column`` is arrays of ``empty``."""
        if not self.filled:
            return False
        buffers = [buffer for chunk in column.chunks for buffer in chunk.buffers() if buffer is not None]
        rest: int = size - sum(one.size for one in buffers if self._offset(one.address) is not None)
        return rest < _BIG_BYTES

    def _described(self, table: pa.Table) -> tuple[bytes, list[tuple[int, int]]]:
        """``table``, pickled but for what is here already, and where that lies."""
        spans: list[tuple[int, int]] = []

        def within(buffer: pickle.PickleBuffer) -> bool:
            view = np.frombuffer(buffer.raw(), np.uint8)
            offset = self._offset(view.ctypes.data)
            if offset is not None:
                spans.append((offset, len(view)))
            return offset is None

        return pickle.dumps(table, 5, buffer_callback=within), spans

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
        self, message: bytes, pool: Pool | None = None, known: pa.Table | None = None
    ) -> tuple[Any, pa.Table | None]:
        """The parcel's values and table. Big columns lie in the segment: with the last of them it goes to ``pool``."""
        held = self._mapped(0).toreadonly()
        start, head, small, big = _SIZES.unpack(message)
        values, told = pickle.loads(held[start : start + head])
        tables: list[pa.Table] = []
        memory = pa.py_buffer(held)
        if told is not None:
            kept, order, here = told
            if known is not None and kept:
                tables.append(known.select(kept))
            at = start + _aligned(head)
            tables.append(pa.ipc.open_stream(pa.py_buffer(bytes(held[at : at + small]))).read_all())
            if here is not None:
                words, spans = here
                tables.append(pickle.loads(words, buffers=[memory.slice(*span) for span in spans]))
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

    def drop_large(self) -> None:
        """After an answer: the other side keeps no very large one either."""
        for place, segment in list(self.segments.items()):
            if os.fstat(segment.fd).st_size > _KEEP_BYTES:
                self.segments.pop(place).close()


def _aligned(size: int) -> int:
    return size + -size % _ALIGN


def _stream(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def _same(table: pa.Table, known: pa.Table | None) -> tuple[list[int], list[int]]:
    """Which columns of ``table`` are columns of ``known``, and which of those each is."""
    if known is None:
        return [], []
    places = {name: i for i, name in enumerate(known.schema.names)}
    pairs = [(i, places[name]) for i, name in enumerate(table.schema.names) if name in places]
    pairs = [(i, j) for i, j in pairs if table.column(i).equals(known.column(j))]  # at once, if it is the same object
    return [i for i, _ in pairs], [j for _, j in pairs]


def _joined(tables: list[pa.Table], order: list[int]) -> pa.Table:
    """One table of the columns of all, in ``order``. As few calls as can be: with cold caches each is dear."""
    joined, *others = tables
    for table in others:
        for field, column in zip(table.schema, table.columns, strict=True):
            joined = joined.append_column(field, column)
    return joined.select(order)
