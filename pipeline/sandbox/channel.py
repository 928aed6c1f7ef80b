"""A channel between a worker process and its parent: one table at a time, and the task that the worker records."""

from __future__ import annotations

import os
import socket
import weakref
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa

from pipeline.sandbox.shared_memory import BufferPool, SharedBuffer, shared_file
from pipeline.sandbox.tasks import SLOT_BYTES, TaskSlot


@dataclass(frozen=True)
class MapResult:
    """A mapped table.

    Args:
        table: the table.
        survived: the files among ``TaskPolicy.suspects`` of which some task succeeded.
    """

    table: pa.Table
    survived: frozenset[bytes]


class Channel:
    """The parent's end of a channel. As a context manager it supplies the worker's end, and closes that end after.

    Args:
        pool: supplies the buffers for replies. The worker keeps the same few mapped for this channel.
    """

    def __init__(self, pool: BufferPool) -> None:
        self.pool = pool
        self.socket, self._worker_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._slot_fd = shared_file(SLOT_BYTES)
        self.slot = TaskSlot(self._slot_fd)
        self.request = SharedBuffer()
        """The buffer of the requests. Each reply has one from a pool, since its table may be in use for longer."""
        self._close = weakref.finalize(self, self.socket.close)

    def __enter__(self) -> tuple[int, int]:
        """Returns the descriptors of the worker's socket and of the file of the task slot."""
        return self._worker_socket.fileno(), self._slot_fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker_socket.close()
        os.close(self._slot_fd)
