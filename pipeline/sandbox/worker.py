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
import threading
from typing import Any, Protocol

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.registry import known_implementations

from pipeline.core.errors import TesseraError, describe
from pipeline.core.system import allocator, pandas_import
from pipeline.sandbox.process_tree import start_session
from pipeline.sandbox.shared_memory import BufferCache, SharedBuffer
from pipeline.sandbox.tasks import GuardJournal, StageContext, TaskGuard, TaskPolicy, TaskSlot

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
MESSAGE_BYTES = 64
"""Maximum size of a message on the channel, in bytes."""
ANOTHER_CHANNEL = b"channel"
"""Message that opens a further channel."""


class Stage(Protocol):
    """A stage that can run in a worker: maps tables row by row, and enters ``context.guard`` around each task.

    A journaled stage maps tables at once, some of them in parallel. Given a `RowJournal` as a second argument, it maps
    row by row, and then nothing else runs in the process.
    """

    context: StageContext

    def import_code(self) -> None: ...

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table, *journal: Any) -> pa.Table: ...


def main(channel_fd: int, slot_fd: int, parent: int) -> None:
    """Runs the worker until its parent closes the channel.

    The first message on the channel holds the stage to set up, each later one a table to map. Such a message comes with
    two files: the buffer of the request, and the buffer into which the reply is written. The message `ANOTHER_CHANNEL`
    comes with the files of a further channel, which is served by a thread of its own.

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
    pandas_import.skip()
    allocator.keep_pages()
    channel, slot, buffers = socket.socket(fileno=channel_fd), TaskSlot(slot_fd), BufferCache()
    message, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
    if not message:
        return
    request, reply = map(buffers.get, fds)
    gc.disable()  # imported objects are not garbage
    try:
        stage, guard = _set_up(request.read(message)[0], slot)
    except Exception as error:  # the parent raises it, as an error of the run
        channel.send(reply.write(portable(error)))
        return
    reply_message = reply.write(None)
    _silence()
    del request, reply
    buffers.drop_large()
    channel.send(reply_message)
    _serve(channel, buffers, stage, guard)


def _set_up(data: bytes, slot: TaskSlot) -> tuple[Stage, TaskGuard]:
    """Returns the stage of the first message, set up, and the guard of the first channel."""
    stage, memory_bytes, schemes = pickle.loads(data)
    set_process_name(f"tessera-{type(stage).__name__.removesuffix('Stage').lower()}")
    for scheme, name in schemes.items():
        fsspec.register_implementation(scheme, name, clobber=True)
    guard = TaskGuard(slot, memory_bytes)
    stage.context = StageContext(guard, _allocate, on_wait=slot.mark_waiting)
    stage.setup()
    gc.enable()
    gc.collect()
    gc.freeze()  # later collections skip what exists now, and do not copy pages shared with a fork server
    return stage, guard


def _serve(channel: socket.socket, buffers: BufferCache, stage: Stage, guard: TaskGuard) -> None:
    """Maps one table after another until the parent closes the channel."""
    while True:
        message, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not message:
            return
        if message == ANOTHER_CHANNEL:
            further = socket.socket(fileno=fds[0]), BufferCache(), stage, guard.for_slot(TaskSlot(fds[1]))
            threading.Thread(target=_serve_in_thread, args=further, daemon=True).start()
            os.close(fds[1])
            continue
        request, reply = map(buffers.get, fds)
        reply_message = _map_table(stage, guard, request, reply, message)
        del request, reply
        buffers.drop_large()
        channel.send(reply_message)


def _serve_in_thread(*arguments: Any) -> None:
    """`_serve`. What would end the process in its main thread ends it here too."""
    try:
        _serve(*arguments)
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException:
        os._exit(1)


_current = threading.local()
"""``reply``: the buffer of the reply that this thread prepares, and the guard of its channel."""


def _allocate(size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns an uninitialized array [size], in the reply if this thread maps a table."""
    if getattr(_current, "reply", None) is None:
        return np.empty(size, dtype)
    reply, guard = _current.reply
    guard.lift_limit()
    return reply.empty(size, dtype)  # type: ignore[no-any-return]


def _map_table(stage: Stage, guard: TaskGuard, request: SharedBuffer, reply: SharedBuffer, message: bytes) -> bytes:
    """Maps the table of a request, and writes the result or the error into ``reply``. Returns the message for it."""
    policy, table = request.read(message)
    guard.set_policy(policy or TaskPolicy())
    journal = (GuardJournal(guard),) if guard.policy.row_by_row else ()
    _current.reply = reply, guard
    try:
        result = stage(table, *journal)
    except Exception as error:  # the parent raises it: a defect of the stage is not the failure of a row
        guard.lift_limit()
        return reply.write(portable(error))
    finally:
        _current.reply = None
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
