"""The worker process: sets a stage up, then maps one table after another.

`pipeline.sandbox.process` starts it. It ends when its parent ends, whatever it is doing.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
from dataclasses import replace
from typing import Any, Protocol

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.registry import known_implementations

from pipeline.core.errors import TesseraError, describe
from pipeline.core.system import allocator
from pipeline.sandbox.process_tree import start_session
from pipeline.sandbox.shared_memory import BufferCache, SharedBuffer
from pipeline.sandbox.tasks import GuardJournal, StageContext, TaskGuard, TaskPolicy, TaskSlot

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
MESSAGE_BYTES = 64
"""Maximum size of a message on the channel, in bytes."""


class Stage(Protocol):
    """A stage that can run in a worker: maps tables row by row, and enters ``context.guard`` around each task.

    A journaled stage maps tables at once. Given a `RowJournal` as a second argument, it maps row by row.
    """

    context: StageContext

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table, *journal: Any) -> pa.Table: ...


def main(channel_fd: int, slot_fd: int, parent: int) -> None:
    """Runs the worker until its parent closes the channel.

    The first message on the channel holds the stage to set up, each later one a table to map. A message comes with two
    files: the buffer of the request, and the buffer into which the reply is written.

    Args:
        channel_fd: descriptor of the socket to the parent.
        slot_fd: descriptor of the file of the `TaskSlot`.
        parent: process id of the parent.
    """
    die_with_parent(parent)
    start_session()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pa.set_cpu_count(1)
    allocator.keep_pages()
    channel = socket.socket(fileno=channel_fd)
    buffers = BufferCache()
    stage: Stage | None = None
    guard: TaskGuard | None = None
    while True:
        message, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not message:
            return
        request, reply = map(buffers.get, fds)
        if stage is None or guard is None:
            try:
                stage, memory_bytes, schemes = pickle.loads(request.read(message)[0])
                set_process_name(f"tessera-{type(stage).__name__.removesuffix('Stage').lower()}")
                for scheme, name in schemes.items():
                    fsspec.register_implementation(scheme, name, clobber=True)
                slot = TaskSlot(slot_fd)
                guard = TaskGuard(slot, memory_bytes)
                stage.context = StageContext(guard, on_wait=slot.mark_waiting)
                stage.setup()
                gc.collect()
                gc.freeze()  # later collections skip what exists now, and do not copy pages shared with a fork server
                reply_message = reply.write(None)
            except Exception as error:  # the parent raises it, as an error of the run
                reply_message = reply.write(portable(error))
            _silence()
        else:
            reply_message = _map_table(stage, guard, request, reply, message)
        del request, reply
        buffers.drop_large()
        channel.send(reply_message)


def _map_table(stage: Stage, guard: TaskGuard, request: SharedBuffer, reply: SharedBuffer, message: bytes) -> bytes:
    """Maps the table of a request, and writes the result or the error into ``reply``. Returns the message for it."""
    policy, table = request.read(message)
    guard.set_policy(policy or TaskPolicy())
    journal = (GuardJournal(guard),) if guard.policy.row_by_row else ()

    def allocate(size: int, dtype: np.dtype[Any]) -> np.ndarray:
        guard.lift_limit()
        return reply.empty(size, dtype)

    stage.context = replace(stage.context, allocate=allocate)
    try:
        result = stage(table, *journal)
    except Exception as error:  # the parent raises it: a defect of the stage is not the failure of a row
        guard.lift_limit()
        return reply.write(portable(error))
    finally:
        stage.context = replace(stage.context, allocate=np.empty)
        guard.lift_limit()
    return reply.write(guard.survived, result, table)


def registered_schemes() -> dict[str, str]:
    """Returns the file systems that are registered in this process only: scheme -> dotted name of the class.

    Ray's worker hook registers some, and a program may register its own. A new process has only those of the installed
    packages.
    """
    names = {scheme: f"{class_.__module__}.{class_.__qualname__}" for scheme, class_ in fsspec.registry.items()}
    return {
        scheme: name
        for scheme, name in names.items()
        if not name.startswith("__main__.") and known_implementations.get(scheme, {}).get("class") != name
    }


def portable(error: Exception) -> Exception:
    """Returns ``error``, or a ``TesseraError`` with its description if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its own pickling code may raise anything
        return TesseraError(describe(error))
    return error


def die_with_parent(parent: int) -> None:
    """Lets the kernel kill this process when its parent ends.

    Args:
        parent: process id of the parent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def set_process_name(name: str) -> None:
    """Sets the name of this process in `top` and `ps`; at most 15 characters are shown."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _silence() -> None:
    """Discards all further output: decoders print messages about files."""
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 1)
    os.dup2(null_fd, 2)
    os.close(null_fd)
