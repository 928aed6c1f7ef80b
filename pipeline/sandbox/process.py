"""The parent's side of a worker process: starts it, sends it tables, watches and ends it."""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pyarrow as pa

from pipeline.core.errors import DeviceFailed, FailureKind, TesseraError
from pipeline.decoders.limits import LimitsConfig
from pipeline.sandbox._process_memory import ProcessMemory
from pipeline.sandbox._spawned_process import SpawnedProcess
from pipeline.sandbox.channel import Channel, MapResult
from pipeline.sandbox.fork_server import ForkedProcess, last_line
from pipeline.sandbox.shared_memory import BufferPool
from pipeline.sandbox.tasks import TaskPolicy, TaskRecord
from pipeline.sandbox.worker import ANOTHER_CHANNEL, MESSAGE_BYTES, Stage, registered_schemes
from pipeline.sandbox.worker_exit import STEP_VERBS, WorkerExit, of_device, of_exit_code

_CHECK_INTERVAL_S, _FIRST_CHECK_S = 0.1, 0.3
_EXIT_TIMEOUT_S = 5.0
_MAX_STARTS = 3
AnyProcess = SpawnedProcess | ForkedProcess


@dataclass(frozen=True)
class ProcessOptions:
    """How worker processes are started.

    Args:
        fork_server: address of the fork server from which they fork; None: each is a new Python interpreter.
        environment: variables that they have besides those of this process.
        concurrency: number of tables that a process maps at a time, in threads that share the stage.
        encodes: they are the processes of an encoder. Only messages differ.
    """

    fork_server: str | None = None
    environment: Mapping[str, str] | None = None
    concurrency: int = 1
    encodes: bool = False


class WorkerProcess:
    """A worker process with one stage that is set up in it.

    Args:
        stage: the stage.
        limits: time and memory that one task may take.
        pool: supplies the buffers for replies on the first channel.
        options: how it is started.
        on_start: called with each process that is started, before the stage is set up in it. May raise, which ends it.

    Raises:
        TesseraError: it cannot start.
        Exception: what ``stage.setup`` raises in it.
    """

    def __init__(
        self,
        stage: Stage,
        limits: LimitsConfig,
        pool: BufferPool,
        options: ProcessOptions | None = None,
        on_start: Callable[[AnyProcess], None] | None = None,
    ) -> None:
        self.limits, self.pool, self.options = limits, pool, options or ProcessOptions()
        self._on_start = on_start
        self._exit_lock = threading.Lock()
        for attempt in range(_MAX_STARTS):
            reason = self._start(stage)
            if reason is None:
                break
            if self.process.returncode != -signal.SIGKILL or attempt == _MAX_STARTS - 1:
                raise TesseraError(f"the process of {type(stage).__name__} cannot start: {reason}")
        self._free = SimpleQueue[Channel]()
        self._free.put(self.channel)
        for _ in range(self.options.concurrency - 1):
            self._free.put(self._another_channel())

    def _start(self, stage: Stage) -> str | None:
        """Starts the process and sets the stage up. Returns None, or how the process ended."""
        with tempfile.TemporaryFile() as stderr_file:
            if self.options.fork_server is None or not self._create_process(stderr_file, self.options.fork_server):
                self._create_process(stderr_file, None)
            self._end = weakref.finalize(self, _end, self.process, self.memory)
            if self._on_start is not None:
                self._on_start(self.process)
            values = pickle.dumps((stage, self.limits.memory_bytes, registered_schemes()), 5)
            reply = self._exchange(self.channel, values, None)
            if not isinstance(reply, WorkerExit):
                return None
            self._end()
            return last_line(stderr_file) or reply.message

    def _create_process(self, stderr_file: Any, fork_server: str | None) -> bool:
        """Creates the process with its first channel. Returns False if the fork server is gone.

        Each attempt has its own channel: the process of a failed attempt may still read from it.
        """
        self.channel = Channel(self.pool)
        variables = self.options.environment or {}
        with self.channel as fds:
            try:
                if fork_server is None:
                    self.process: AnyProcess = SpawnedProcess(*fds, stderr_file.fileno(), variables)
                    self.memory = ProcessMemory(self.process.pid)
                else:
                    self.process = forked = ForkedProcess(fork_server, *fds, stderr_file.fileno(), variables)
                    self.memory = ProcessMemory(fd=forked.statm_fd)
            except OSError:
                if fork_server is None:
                    raise
                return False
        return True

    def _another_channel(self) -> Channel:
        """Returns a further channel of the process, which has a thread of its own there."""
        made = Channel(BufferPool())
        with made as fds, suppress(BrokenPipeError, ConnectionResetError):  # the first table notices
            socket.send_fds(self.channel.socket, [ANOTHER_CHANNEL], list(fds))
        return made

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        with self._exit_lock:
            return self.process.poll() is None

    def map(self, table: pa.Table, policy: TaskPolicy) -> MapResult | WorkerExit:
        """Maps ``table`` with the stage. Raises what the stage raises, but for a failure of its device.

        As many threads may call it at a time as ``options.concurrency``; more wait.

        Returns:
            the mapped table, or how the process ended, or that its device failed.
        """
        channel = self._free.get()
        try:
            reply = self._exchange(channel, None if policy == TaskPolicy() else policy, table)
        except DeviceFailed as error:
            return of_device(error, channel.slot.read())
        finally:
            self._free.put(channel)
        if isinstance(reply, WorkerExit):
            return reply
        survived, mapped = reply
        return MapResult(mapped, frozenset(survived))

    def close(self) -> None:
        """Ends the process."""
        with self._exit_lock:
            self._end()

    def _exchange(self, channel: Channel, values: Any, table: pa.Table | None) -> tuple[Any, pa.Table] | WorkerExit:
        """Sends a request and reads its reply. Raises the error of the stage, if that is the reply."""
        buffer = channel.pool.take()
        read = False
        try:
            message = channel.request.write(values, table)
            try:
                socket.send_fds(channel.socket, [message], [channel.request.fd, buffer.fd])
                reply = self._wait_for_reply(channel)
            except (BrokenPipeError, ConnectionResetError):
                reply = self._exit_reason(channel)
            except BaseException:  # interrupted: a later request must not get the reply to this one
                self.close()
                raise
            if isinstance(reply, WorkerExit):
                return reply
            read = True
            reply_values, mapped = buffer.read(reply, channel.pool, table)
        finally:
            if not read:
                channel.pool.give(buffer)
        if isinstance(reply_values, Exception):
            raise reply_values
        return reply_values, mapped

    def _wait_for_reply(self, channel: Channel) -> bytes | WorkerExit:
        """Waits for a reply. Checks the process at intervals, and ends it if its task is over a limit.

        The first check comes later: most tables are done by then, and a check runs with cold CPU caches.
        """
        channel.socket.settimeout(_FIRST_CHECK_S)
        number, spent_s, last_s = 0, 0.0, time.monotonic()
        while True:
            with suppress(TimeoutError):
                return channel.socket.recv(MESSAGE_BYTES) or self._exit_reason(channel)
            channel.socket.settimeout(_CHECK_INTERVAL_S)
            now_s, task = time.monotonic(), channel.slot.read()
            # time in which this process did not run either (a suspended machine) does not count
            passed_s, last_s = min(now_s - last_s, 4 * _CHECK_INTERVAL_S), now_s
            if task is None or task.number != number:
                number, spent_s = task.number if task else 0, 0.0
                continue
            spent_s += passed_s
            verb = STEP_VERBS[task.step]
            if spent_s > self.limits.row_seconds:
                message = f"{verb} took longer than {self.limits.row_seconds:g} s"
                if task.waited:
                    return self._kill(channel, task, "io", f"{message}: its storage failed and was asked again")
                return self._kill(channel, task, "timeout", message)
            if self.memory.anonymous_bytes() - task.base_bytes > self.limits.memory_bytes:
                limit = f"{self.limits.memory_bytes / 2**30:.3g} GiB"
                return self._kill(channel, task, "memory", f"{verb} took more than {limit} of memory")

    def _kill(self, channel: Channel, task: TaskRecord, kind: FailureKind, message: str) -> WorkerExit:
        """Ends the process because ``task`` is over a limit."""
        self.close()
        # the task may have ended, or another one begun, between the check and the kill
        last = channel.slot.read()
        return WorkerExit(task if last and last.number == task.number else None, kind, message, over_limit=True)

    def _exit_reason(self, channel: Channel) -> WorkerExit:
        """Returns how the process ended, after the other end of the channel was closed."""
        with self._exit_lock:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_EXIT_TIMEOUT_S)
            self._end()
        return of_exit_code(self.process.returncode, channel.slot.read(), self.options.encodes)


def _end(process: AnyProcess, memory: ProcessMemory) -> None:
    """Kills the process and closes the parent's files for it, but for its channels, which other threads may read."""
    memory.close()
    process.kill()
    # a process in an uninterruptible system call ends when the call returns
    with suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_TIMEOUT_S)
