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
_KEEP_BYTES = 256 << 20
_KEEP = 2


def shared_file(size: int = 0) -> int:
    """File descriptor of a new shared memory of ``size`` zero bytes."""
    fd = os.memfd_create("tessera")
    os.truncate(fd, size)
    return fd


def write(fd: int, values: Any, table: pa.Table | None = None) -> bytes:
    """Put a parcel into the file ``fd``. Returns the message that its reader needs."""
    os.lseek(fd, 0, os.SEEK_SET)
    sizes = []
    with open(fd, "wb", closefd=False) as file:
        start = 0
        for part in _parts(values, table):
            if isinstance(part, bytes):
                file.write(part)
            else:
                with pa.ipc.new_stream(file, part.schema) as stream:
                    stream.write_table(part)
            sizes.append(file.tell() - start)
            file.write(bytes(-sizes[-1] % _ALIGN))
            start = file.tell()
    return _SIZES.pack(*sizes)


def _parts(values: Any, table: pa.Table | None) -> tuple[bytes | pa.Table, ...]:
    """Small columns go apart: copied by the reader, those that outlive the big ones hold no shared memory."""
    if table is None:
        return pickle.dumps((values, None), 5), b"", b""
    big = [i for i, column in enumerate(table.columns) if column.nbytes >= _BIG_BYTES]
    small = sorted(set(range(table.num_columns)) - set(big))
    head = pickle.dumps((values, [*small, *big]), 5)
    # a table without columns has no rows either, so the small part is there even if it is empty
    return head, table.select(small), table.select(big) if big else b""


def read(memory: memoryview, message: bytes) -> tuple[Any, pa.Table | None, memoryview | None]:
    """The values, the table, and the part of ``memory`` that its big columns lie in (None: it has none)."""
    offset, parts = 0, []
    for size in _SIZES.unpack(message):
        parts.append(memory[offset : offset + size])
        offset += size + -size % _ALIGN
    values, order = pickle.loads(parts[0])
    if order is None:
        return values, None, None
    tables = [pa.ipc.open_stream(pa.py_buffer(bytes(parts[1]))).read_all()]
    if len(parts[2]):
        tables.append(pa.ipc.open_stream(pa.py_buffer(parts[2])).read_all())
    columns = dict(zip(order, _columns(tables), strict=True))
    fields, arrays = zip(*(columns[place] for place in sorted(columns)), strict=True) if columns else ((), ())
    schema = pa.schema(fields, tables[0].schema.metadata)
    return values, pa.Table.from_arrays(list(arrays), schema=schema), parts[2] if len(parts[2]) else None


def _columns(tables: list[pa.Table]) -> list[tuple[pa.Field, pa.ChunkedArray]]:
    return [one for table in tables for one in zip(table.schema, table.columns, strict=True)]


class Segment:
    """Shared memory of one parcel at a time, as its owner sees it."""

    def __init__(self) -> None:
        self.fd = shared_file()
        self.memory: mmap.mmap | None = None
        self.close = weakref.finalize(self, os.close, self.fd)

    def read(self, message: bytes, pool: Pool) -> tuple[Any, pa.Table | None]:
        """The parcel that another process put here; the segment goes back to ``pool`` with the table's last column."""
        size = os.fstat(self.fd).st_size
        if self.memory is None or len(self.memory) < size:
            self.memory = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
        values, table, held = read(memoryview(self.memory), message)
        if held is None:
            pool.give(self)
        else:
            weakref.finalize(held, pool.give, self).atexit = False
        return values, table


class Pool:
    """Segments that are used again: the pages of a new one cost more than copying into them."""

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
