"""The process itself. Started by `pipeline.sandbox.process`; it ends when its parent ends, whatever it is doing."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
from typing import Any, Protocol

import fsspec
import numpy as np
import pyarrow as pa

from pipeline.core import allocator, arrow
from pipeline.core.errors import TesseraError, describe
from pipeline.sandbox.process_tree import start_session
from pipeline.sandbox.shared_memory import BufferCache, SharedBuffer
from pipeline.sandbox.tasks import Guard, TaskGuard, TaskPolicy, TaskSlot
from pipeline.storage import retry

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
MESSAGE_BYTES = 64


class Stage(Protocol):
    """What can be isolated: maps tables to tables, row by row, and enters ``guard`` around each work."""

    guard: Guard

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table: ...


def main(channel_fd: int, note_fd: int, parent: int) -> None:
    """Set the stage up that comes first through the channel, answer, then map every table that comes."""
    die_with_parent(parent)
    start_session()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pa.set_cpu_count(1)
    allocator.keep_pages()
    channel = socket.socket(fileno=channel_fd)
    known = BufferCache()
    stage: Stage | None = None
    watcher: TaskGuard | None = None
    while True:
        message, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not message:
            return
        asked, answer = map(known.segment, fds)
        if stage is None or watcher is None:
            try:
                stage, memory_bytes, schemes = pickle.loads(asked.read(message)[0])
                set_process_name(f"tessera-{type(stage).__name__.removesuffix('Stage').lower()}")
                for scheme, name in schemes.items():
                    fsspec.register_implementation(scheme, name, clobber=True)
                note = TaskSlot(note_fd)
                watcher = stage.guard = TaskGuard(note, memory_bytes)
                retry.on_wait = note.wait
                stage.setup()
                gc.collect()
                gc.freeze()  # what is here stays: a collection looks at what a row leaves, and copies no page of a fork
                reply = answer.write(None)
            except Exception as error:  # told by the parent, as an error of the run
                reply = answer.write(portable(error))
            _silence()
        else:
            reply = _map_table(stage, watcher, asked, answer, message)
        del asked, answer
        known.drop_large()
        channel.send(reply)


def _map_table(stage: Stage, watcher: TaskGuard, asked: SharedBuffer, answer: SharedBuffer, message: bytes) -> bytes:
    orders, table = asked.read(message)
    watcher.follow(orders or TaskPolicy())

    def empty(size: int, dtype: np.dtype[Any]) -> np.ndarray:
        watcher.rest()
        return answer.empty(size, dtype)

    arrow.empty = empty
    try:
        done = stage(table)
    except Exception as error:  # raised again by the parent: a defect of the stage is none of a row
        watcher.rest()
        return answer.write(portable(error))
    finally:
        arrow.empty = np.empty
        watcher.rest()
    return answer.write(watcher.survived, done, table)


def portable(error: Exception) -> Exception:
    """``error``, or its words if it does not pickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own pickling raises
        return TesseraError(describe(error))
    return error


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that was set
        os._exit(1)


def set_process_name(name: str) -> None:
    """What `top` and `ps` show of this process: at most 15 letters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _silence() -> None:
    """Decoders write to the terminal what they think of a file."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
