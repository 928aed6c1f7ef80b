"""A process that runs a stage, from its parent's side: started, given tables, watched, ended."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.registry import known_implementations

from pipeline.core.errors import FailureKind, StageName, TesseraError
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox.fork_server import ONE_THREAD, ForkedProcess, last_line, readable
from pipeline.sandbox.process_tree import kill_group, kill_tree
from pipeline.sandbox.shared_memory import BufferPool, SharedBuffer, shared_file
from pipeline.sandbox.tasks import SLOT_BYTES, Memory, TaskPolicy, TaskRecord, TaskSlot
from pipeline.sandbox.worker import MESSAGE_BYTES, Stage

_LOOK_S, _FIRST_LOOK_S = 0.1, 0.3
_END_S = 5.0
_STARTS = 3
_RUN = (
    "import sys; sys.path[:] = sys.argv[4:]; from pipeline.sandbox.worker import main; main(*map(int, sys.argv[1:4]))"
)
_DOING: dict[StageName, str] = {"probe": "opening", "decode": "decoding", "tokenize": "tokenizing"}


@dataclass(frozen=True)
class WorkerExit:
    """How a process ended. ``noted``: at what, None: at nothing that a stage notes. ``ours``: it was over a limit."""

    noted: TaskRecord | None
    kind: FailureKind
    message: str
    ours: bool


@dataclass(frozen=True)
class Mapped:
    """``survived``: those of the suspected files of which some work ended well."""

    table: pa.Table
    survived: frozenset[bytes]


class WorkerProcess:
    """One process with one stage in it, set up.

    Args:
        template: address of the process that it forks from, if there is one.

    Raises:
        TesseraError: it could not start; or what the stage's ``setup`` raised there.
    """

    def __init__(self, stage: Stage, limits: LimitsConfig, pool: BufferPool, template: str | None = None) -> None:
        self.limits, self.pool, self.template, self.asked = limits, pool, template, SharedBuffer()
        for attempt in range(_STARTS):
            words = self._start(stage)
            if words is None:
                return
            if self.process.returncode != -signal.SIGKILL or attempt == _STARTS - 1:
                raise TesseraError(f"the process of {type(stage).__name__} cannot start: {words}")

    def _start(self, stage: Stage) -> str | None:
        """None once the stage is set up, or how the process ended."""
        with tempfile.TemporaryFile() as told:
            if self.template is None or not self._begun(told, self.template):
                self._begun(told, None)
            self._end = weakref.finalize(self, _end, self.process, self.channel, self.memory)
            answer = self._exchange(pickle.dumps((stage, self.limits.memory_bytes, _schemes()), 5), None)
            if not isinstance(answer, WorkerExit):
                return None
            self._end()
            return last_line(told) or answer.message

    def _begun(self, told: Any, template: str | None) -> bool:
        """Start the process, forked from ``template`` or by itself; False if there is no such template any more.

        Each attempt has a channel and a note of its own: of one that failed, a process may still listen.
        """
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        note_fd = shared_file(SLOT_BYTES)
        try:
            fds = (theirs.fileno(), note_fd)
            if template is None:
                self.process: SpawnedProcess | ForkedProcess = SpawnedProcess(*fds, told.fileno())
                self.memory = Memory(self.process.pid)
            else:
                self.process = forked = ForkedProcess(template, *fds, told.fileno())
                self.memory = Memory(fd=forked.statm)
            self.note = TaskSlot(note_fd)
        except OSError:
            self.channel.close()
            if template is None:
                raise
            return False
        finally:
            theirs.close()
            os.close(note_fd)
        return True

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def map(self, table: pa.Table, orders: TaskPolicy) -> Mapped | WorkerExit:
        """``table`` through the stage, or how the process ended at it. Raises what the stage raises."""
        answer = self._exchange(None if orders == TaskPolicy() else orders, table)
        if isinstance(answer, WorkerExit):
            return answer
        survived, done = answer
        return Mapped(done, frozenset(survived))

    def close(self) -> None:
        self._end()

    def _exchange(self, values: Any, table: pa.Table | None) -> tuple[Any, pa.Table] | WorkerExit:
        answer = self.pool.take()
        kept = False
        try:
            message = self.asked.write(values, table)
            try:
                socket.send_fds(self.channel, [message], [self.asked.fd, answer.fd])
                reply = self._awaited()
            except (BrokenPipeError, ConnectionResetError):
                reply = self._death()
            except BaseException:  # interrupted: what the process still answers is to nobody's question
                self._end()
                raise
            if isinstance(reply, WorkerExit):
                return reply
            kept = True
            told, done = answer.read(reply, self.pool, table)
        finally:
            if not kept:
                self.pool.give(answer)
        if isinstance(told, Exception):
            raise told
        return told, done

    def _awaited(self) -> bytes | WorkerExit:
        """The answer. Looks at the process from time to time and ends it if it is over a limit.

        The first look is later: most tables need none, and it finds its caches cold.
        """
        self.channel.settimeout(_FIRST_LOOK_S)
        number, spent_s, before = 0, 0.0, time.monotonic()
        while True:
            with suppress(TimeoutError):
                return self.channel.recv(MESSAGE_BYTES) or self._death()
            self.channel.settimeout(_LOOK_S)
            now, noted = time.monotonic(), self.note.read()
            # time in which this process did not run either (a frozen machine) is not the work's
            passed, before = min(now - before, 4 * _LOOK_S), now
            if noted is None or noted.number != number:
                number, spent_s = noted.number if noted else 0, 0.0
                continue
            spent_s += passed
            doing = _DOING[noted.step]
            if spent_s > self.limits.row_seconds:
                late = f"{doing} took longer than {self.limits.row_seconds:g} s"
                if noted.waited:
                    return self._killed(noted, "io", f"{late}: its storage failed and was asked again")
                return self._killed(noted, "timeout", late)
            if self.memory.anonymous_bytes() - noted.base_bytes > self.limits.memory_bytes:
                most = f"{self.limits.memory_bytes / 2**30:.3g} GiB"
                return self._killed(noted, "memory", f"{doing} took more than {most} of memory")

    def _killed(self, noted: TaskRecord, kind: FailureKind, message: str) -> WorkerExit:
        self._end()
        # it may have come to its end, or to another work, between the look and the kill
        last = self.note.read()
        return WorkerExit(noted if last and last.number == noted.number else None, kind, message, ours=True)

    def _death(self) -> WorkerExit:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_S)
        self._end()
        code, noted = self.process.returncode, self.note.read()
        doing = f" while {_DOING[noted.step]}" if noted else ""
        if code == -signal.SIGKILL:
            return WorkerExit(noted, "memory", f"the decoder's process was killed{doing}: is memory short?", ours=False)
        if code is not None and code >= 0:
            return WorkerExit(
                noted, "crash", f"the decoder's process ended itself{doing} (exit code {code})", ours=False
            )
        return WorkerExit(noted, "crash", f"the decoder's process died{doing} ({_signal_name(code)})", ours=False)


class SpawnedProcess:
    """A process that this one started: a ``subprocess.Popen`` that takes its descendants along."""

    def __init__(self, channel_fd: int, note_fd: int, told_fd: int) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(channel_fd), str(note_fd), str(os.getpid()), *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told_fd,
            pass_fds=(channel_fd, note_fd),
            env={**os.environ, **ONE_THREAD},
        )
        self.pid = self._popen.pid
        self._handle = os.pidfd_open(self.pid)
        self._close = weakref.finalize(self, os.close, self._handle)

    @property
    def returncode(self) -> int | None:
        return self._popen.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code; negative: the signal."""
        if self._popen.returncode is None:
            if not readable([self._handle], timeout):
                raise subprocess.TimeoutExpired(_RUN, timeout)
            kill_group(self.pid)  # before it is reaped: then its number may become another's
            self._popen.wait()
            self._close()
        return int(self._popen.returncode)

    def kill(self) -> None:
        if self.poll() is None:
            kill_tree(self.pid, lambda number: signal.pidfd_send_signal(self._handle, number))


def _schemes() -> dict[str, str]:
    """The storage that this process knows by registration (Ray's worker hook, a program's own), by name: a fresh
    process knows it only by what is installed."""
    named = {scheme: f"{each.__module__}.{each.__qualname__}" for scheme, each in fsspec.registry.items()}
    return {
        scheme: name
        for scheme, name in named.items()
        if not name.startswith("__main__.") and known_implementations.get(scheme, {}).get("class") != name
    }


def _signal_name(code: int | None) -> str:
    try:
        return signal.Signals(-(code or 0)).name
    except ValueError:
        return f"signal {-(code or 0)}"


def _end(process: SpawnedProcess | ForkedProcess, channel: socket.socket, memory: Memory) -> None:
    channel.close()
    memory.close()
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that the kernel holds ends when it lets go
        process.wait(_END_S)
