"""A process that imports the heavy libraries once, and from which worker processes fork in milliseconds.

Importing torch and `transformers` takes four seconds of a core or more, and each process of a run needs them. On one
machine one process does it while the driver lists the corpus: it checks the features of the config, which takes the
same imports and which the driver needs anyway. It returns the result to the driver, and then forks a worker for each
request of the driver. On Ray each worker that has processes starts such a process for them.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipeline.core.errors import TesseraError, describe, one_line
from pipeline.core.system import private_folder
from pipeline.sandbox.process_tree import kill_tree

_RUN = (
    "import sys; sys.path[:] = sys.argv[3:]; from pipeline.sandbox._fork_server_process import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)
_REPLY_TIMEOUT_S = 30.0
_BACKLOG = 4096
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a process that computes with one thread, and may fork: after a fork of a process with several threads,
locks that another thread held are never released."""
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Lets malloc of this process, and of those forked from it, use huge pages if the machine gives them to who asks
(``/sys/kernel/mm/transparent_hugepage/enabled``: ``madvise``). A fork copies the table of all pages, and the end of a
process empties its own: both take a fifth less."""
_NO_CUDA_START = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Lets torch check for GPUs without starting CUDA, which does not survive a fork."""


class ForkServerDied(TesseraError):
    """The fork server ended before it could fork."""


class ForkServer:
    """The fork server, from the side of the process that starts it; a context manager.

    It ends with its owner, and the processes that it forked end with it.

    Args:
        prepare: called first in the fork server; the forked processes share what it imports.
        arguments: the arguments of ``prepare``.
    """

    def __init__(self, prepare: Callable[..., Any], *arguments: Any) -> None:
        self.folder = private_folder.make("forks", longest=len("/socket"))
        self.address = os.path.join(self.folder, "socket")
        paths = [path or os.getcwd() for path in sys.path]
        self.stderr_file = tempfile.TemporaryFile()  # noqa: SIM115
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.address)
            listener.listen(_BACKLOG)  # a process that connects before the fork server is ready waits
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(listener.fileno()), str(os.getpid()), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr_file,
                pass_fds=[listener.fileno()],
                env={**os.environ, **ONE_THREAD, **_NO_CUDA_START, "GLIBC_TUNABLES": _tunables()},
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(pickle.dumps((prepare, arguments), 5))
            self.process.stdin.close()

    def prepared(self) -> Any:
        """Waits for ``prepare``, and returns its result.

        Raises:
            ForkServerDied: the process ended.
            TesseraError: ``prepare`` raised it, or it raised another error.
        """
        assert self.process.stdout is not None
        data = self.process.stdout.read()
        if not data:
            reason = last_line(self.stderr_file) or "is memory short?"
            raise ForkServerDied(f"the process that imports the models' code ended: {reason}")
        result, error = pickle.loads(data)
        if error is not None:
            raise error if isinstance(error, TesseraError) else TesseraError(describe(error)) from error
        return result

    def close(self) -> None:
        """Kills the fork server and all that it forked, and removes its socket."""
        if self.process.poll() is None:
            kill_tree(self.process.pid, self.process.send_signal)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.stderr_file.close()
        private_folder.remove(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ForkedProcess:
    """A worker process that a fork server forks for the caller, with the interface of ``subprocess.Popen``.

    Args:
        address: path of the socket of the fork server.
        channel_fd: see `worker.main`.
        slot_fd: see `worker.main`.
        stderr_fd: descriptor of the file for the worker's standard error.
        variables: what its environment has besides that of this process.

    Raises:
        OSError: there is no fork server at ``address``, or it cannot fork.
    """

    def __init__(
        self, address: str, channel_fd: int, slot_fd: int, stderr_fd: int, variables: Mapping[str, str]
    ) -> None:
        self.returncode: int | None = None
        self._ending = threading.Lock()
        """Held while the process is killed, or its descriptors are closed."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.connection.settimeout(_REPLY_TIMEOUT_S)
            self.connection.connect(address)
            with _memory_file(pickle.dumps(_process_state(variables), 5)) as request:
                socket.send_fds(self.connection, [b"?"], [channel_fd, slot_fd, stderr_fd, request.fileno()])
                reply, fds, _, _ = socket.recv_fds(self.connection, 64, 2)
            if len(fds) != 2:
                raise ConnectionResetError("the fork server cannot fork")
        except BaseException:
            self.connection.close()
            raise
        self.pid, (self.pidfd, self.statm_fd) = int(reply), fds
        self._close = weakref.finalize(self, _close, self.connection, self.pidfd)

    def poll(self) -> int | None:
        """Returns the exit code, see ``wait``; None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the process.

        Args:
            timeout: seconds; None: no limit.

        Returns:
            the exit code; negative: the number of the signal that killed the process. If the fork server is gone, its
            forked processes were killed with it.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        if self.returncode is None:
            if not readable([self.connection], timeout):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            exit_code = b""
            with suppress(OSError):
                exit_code = self.connection.recv(64)
            with self._ending:
                self.returncode = int(exit_code) if exit_code else -signal.SIGKILL
                self._close()
        return self.returncode

    def kill(self) -> None:
        """Kills the process and its descendants."""
        with self._ending:
            if self.returncode is None:
                kill_tree(self.pid, lambda number: signal.pidfd_send_signal(self.pidfd, number))


def _tunables() -> str:
    """Returns the settings of glibc: those that the user gave last, since the last of two holds."""
    return ":".join(filter(None, (_HUGE_PAGES, os.environ.get("GLIBC_TUNABLES"))))


def _close(connection: socket.socket, pidfd: int) -> None:
    connection.close()
    os.close(pidfd)


def _process_state(variables: Mapping[str, str]) -> tuple[dict[str, str], str, int, int, set[int], int]:
    """Returns what a started process inherits: environment, folder, OOM score, niceness, CPU cores, umask.

    Args:
        variables: added to the environment.
    """
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:  # os.umask would change it for a moment
        umask = int(next(line for line in file if line.startswith("Umask:")).split()[1], 8)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        oom_score = int(file.read())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return {**os.environ, **variables}, os.getcwd(), oom_score, nice, os.sched_getaffinity(0), umask


def _memory_file(data: bytes) -> BinaryIO:
    """Returns an open file in memory that holds ``data``, at its beginning."""
    file = os.fdopen(os.memfd_create("tessera"), "w+b")
    file.write(data)
    file.flush()
    file.seek(0)
    return file


def readable(sources: Sequence[Any], timeout: float | None = None) -> set[int]:
    """Waits until some of ``sources`` can be read, or are closed at the other end.

    Args:
        sources: file descriptors, or objects with a ``fileno``.
        timeout: seconds; None: no limit.

    Returns:
        their file descriptors; empty after ``timeout``.
    """
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout is None else 1000 * timeout)}


def last_line(file: Any) -> str:
    """Returns the last line that a process wrote to ``file``; empty if there is none."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
    return one_line(file.read().decode(errors="replace").strip().rsplit("\n", 1)[-1])
