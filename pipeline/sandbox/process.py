"""The parent's side of a worker process: starts it, sends it tables, watches and ends it."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.core.errors import FailureKind, StageName, TesseraError
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox._process_memory import ProcessMemory
from pipeline.sandbox._spawned_process import SpawnedProcess
from pipeline.sandbox.fork_server import ForkedProcess, last_line
from pipeline.sandbox.shared_memory import BufferPool, SharedBuffer, shared_file
from pipeline.sandbox.tasks import SLOT_BYTES, TaskPolicy, TaskRecord, TaskSlot
from pipeline.sandbox.worker import MESSAGE_BYTES, Stage, registered_schemes

_CHECK_INTERVAL_S, _FIRST_CHECK_S = 0.1, 0.3
_EXIT_TIMEOUT_S = 5.0
_MAX_STARTS = 3
_STEP_VERBS: dict[StageName, str] = {
    "probe": "opening",
    "decode": "decoding",
    "tokenize": "tokenizing",
    "encode": "encoding",
}


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended.

    Args:
        task: the task that it ran; None: it ran none.
        kind: kind of the failure.
        message: message of the failure.
        over_limit: the parent killed it, because the task was over a limit.
    """

    task: TaskRecord | None
    kind: FailureKind
    message: str
    over_limit: bool


@dataclass(frozen=True)
class MapResult:
    """A mapped table.

    Args:
        table: the table.
        survived: the files among ``TaskPolicy.suspects`` of which some task succeeded.
    """

    table: pa.Table
    survived: frozenset[bytes]


class WorkerProcess:
    """A worker process with one stage that is set up in it.

    Args:
        stage: the stage.
        limits: time and memory that one task may take.
        pool: supplies the buffers for replies.
        fork_server: address of the fork server from which it forks; None: it is a new Python interpreter.

    Raises:
        TesseraError: it cannot start.
        Exception: what ``stage.setup`` raises in it.
    """

    def __init__(self, stage: Stage, limits: LimitsConfig, pool: BufferPool, fork_server: str | None = None) -> None:
        self.limits, self.pool, self.fork_server, self.request = limits, pool, fork_server, SharedBuffer()
        for attempt in range(_MAX_STARTS):
            reason = self._start(stage)
            if reason is None:
                return
            if self.process.returncode != -signal.SIGKILL or attempt == _MAX_STARTS - 1:
                raise TesseraError(f"the process of {type(stage).__name__} cannot start: {reason}")

    def _start(self, stage: Stage) -> str | None:
        """Starts the process and sets the stage up. Returns None, or how the process ended."""
        with tempfile.TemporaryFile() as stderr_file:
            if self.fork_server is None or not self._create_process(stderr_file, self.fork_server):
                self._create_process(stderr_file, None)
            self._end = weakref.finalize(self, _end, self.process, self.channel, self.memory)
            reply = self._exchange(pickle.dumps((stage, self.limits.memory_bytes, registered_schemes()), 5), None)
            if not isinstance(reply, WorkerExit):
                return None
            self._end()
            return last_line(stderr_file) or reply.message

    def _create_process(self, stderr_file: Any, fork_server: str | None) -> bool:
        """Creates the process. Returns False if the fork server is gone.

        Each attempt has its own channel and task slot: the process of a failed attempt may still read from them.
        """
        self.channel, worker_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        slot_fd = shared_file(SLOT_BYTES)
        try:
            fds = (worker_channel.fileno(), slot_fd)
            if fork_server is None:
                self.process: SpawnedProcess | ForkedProcess = SpawnedProcess(*fds, stderr_file.fileno())
                self.memory = ProcessMemory(self.process.pid)
            else:
                self.process = forked = ForkedProcess(fork_server, *fds, stderr_file.fileno())
                self.memory = ProcessMemory(fd=forked.statm_fd)
            self.slot = TaskSlot(slot_fd)
        except OSError:
            self.channel.close()
            if fork_server is None:
                raise
            return False
        finally:
            worker_channel.close()
            os.close(slot_fd)
        return True

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def map(self, table: pa.Table, policy: TaskPolicy) -> MapResult | WorkerExit:
        """Maps ``table`` with the stage. Raises what the stage raises.

        Returns:
            the mapped table, or how the process ended.
        """
        reply = self._exchange(None if policy == TaskPolicy() else policy, table)
        if isinstance(reply, WorkerExit):
            return reply
        survived, mapped = reply
        return MapResult(mapped, frozenset(survived))

    def close(self) -> None:
        """Ends the process."""
        self._end()

    def _exchange(self, values: Any, table: pa.Table | None) -> tuple[Any, pa.Table] | WorkerExit:
        """Sends a request and reads its reply. Raises the error of the stage, if that is the reply."""
        buffer = self.pool.take()
        read = False
        try:
            message = self.request.write(values, table)
            try:
                socket.send_fds(self.channel, [message], [self.request.fd, buffer.fd])
                reply = self._wait_for_reply()
            except (BrokenPipeError, ConnectionResetError):
                reply = self._exit_reason()
            except BaseException:  # interrupted: a later request must not get the reply to this one
                self._end()
                raise
            if isinstance(reply, WorkerExit):
                return reply
            read = True
            reply_values, mapped = buffer.read(reply, self.pool, table)
        finally:
            if not read:
                self.pool.give(buffer)
        if isinstance(reply_values, Exception):
            raise reply_values
        return reply_values, mapped

    def _wait_for_reply(self) -> bytes | WorkerExit:
        """Waits for a reply. Checks the process at intervals, and ends it if its task is over a limit.

        The first check comes later: most tables are done by then, and a check runs with cold CPU caches.
        """
        self.channel.settimeout(_FIRST_CHECK_S)
        number, spent_s, last_s = 0, 0.0, time.monotonic()
        while True:
            with suppress(TimeoutError):
                return self.channel.recv(MESSAGE_BYTES) or self._exit_reason()
            self.channel.settimeout(_CHECK_INTERVAL_S)
            now_s, task = time.monotonic(), self.slot.read()
            # time in which this process did not run either (a suspended machine) does not count
            passed_s, last_s = min(now_s - last_s, 4 * _CHECK_INTERVAL_S), now_s
            if task is None or task.number != number:
                number, spent_s = task.number if task else 0, 0.0
                continue
            spent_s += passed_s
            verb = _STEP_VERBS[task.step]
            if spent_s > self.limits.row_seconds:
                message = f"{verb} took longer than {self.limits.row_seconds:g} s"
                if task.waited:
                    return self._kill(task, "io", f"{message}: its storage failed and was asked again")
                return self._kill(task, "timeout", message)
            if self.memory.anonymous_bytes() - task.base_bytes > self.limits.memory_bytes:
                limit = f"{self.limits.memory_bytes / 2**30:.3g} GiB"
                return self._kill(task, "memory", f"{verb} took more than {limit} of memory")

    def _kill(self, task: TaskRecord, kind: FailureKind, message: str) -> WorkerExit:
        """Ends the process because ``task`` is over a limit."""
        self._end()
        # the task may have ended, or another one begun, between the check and the kill
        last = self.slot.read()
        return WorkerExit(task if last and last.number == task.number else None, kind, message, over_limit=True)

    def _exit_reason(self) -> WorkerExit:
        """Returns how the process ended, after the other end of the channel was closed."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_EXIT_TIMEOUT_S)
        self._end()
        code, task = self.process.returncode, self.slot.read()
        while_step = f" while {_STEP_VERBS[task.step]}" if task else ""
        whose = "encoder's" if task and task.step == "encode" else "decoder's"
        kind: FailureKind = "crash"
        if code == -signal.SIGKILL:
            kind = "crash" if whose == "encoder's" else "memory"
            message = f"the {whose} process was killed{while_step}: is memory short?"
        elif code is not None and code >= 0:
            message = f"the {whose} process ended itself{while_step} (exit code {code})"
        else:
            message = f"the {whose} process died{while_step} ({_signal_name(code)})"
        return WorkerExit(task, kind, message, over_limit=False)


def _signal_name(code: int | None) -> str:
    """Returns the name of the signal that an exit code means."""
    try:
        return signal.Signals(-(code or 0)).name
    except ValueError:
        return f"signal {-(code or 0)}"


def _end(process: SpawnedProcess | ForkedProcess, channel: socket.socket, memory: ProcessMemory) -> None:
    """Kills the process and closes the parent's files for it."""
    channel.close()
    memory.close()
    process.kill()
    # a process in an uninterruptible system call ends when the call returns
    with suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_TIMEOUT_S)
