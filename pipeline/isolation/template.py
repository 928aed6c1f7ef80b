"""A process that has imported what the stages' processes of a run take, and from which they fork in milliseconds.

Importing torch and `transformers` takes a core ten seconds, and each process of a run needs them. So one process does
it, while the driver starts Ray: it checks the config's features, which takes the same imports and which the driver
needs anyway, tells them, and then forks a process for whoever on this machine asks. It has one thread at all times.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from pipeline.errors import TesseraError
from pipeline.isolation.serve import call_itself, end_with, main, portable

_RUN = (
    "import sys; sys.path[:] = sys.argv[3:]; from pipeline.isolation.template import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)
_REQUEST_BYTES = 1 << 16
_ANSWER_S = 30.0
_UNKNOWN = 255
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a process that computes with one thread, and may fork: what has threads forks into locks that nobody
lets go."""


class Template:
    """The process, from its owner's side; a context manager. It ends with its owner, and those that it forked with it.

    Args:
        prepare: called in it first, with ``arguments``; what it imports is there for all.
    """

    def __init__(self, prepare: Callable[..., Any], *arguments: Any) -> None:
        self.folder = tempfile.mkdtemp(prefix="tessera-")  # nobody else may enter it
        self.address = os.path.join(self.folder, "template")
        paths = [path or os.getcwd() for path in sys.path]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.address)
            listener.listen(64)  # who asks before it is ready waits
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(listener.fileno()), str(os.getpid()), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env={**os.environ, **ONE_THREAD},
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(pickle.dumps((prepare, arguments), 5))
            self.process.stdin.close()

    def prepared(self) -> Any:
        """What ``prepare`` returned, once it has. Raises what it raised.

        Raises:
            TesseraError: the process died at it.
        """
        assert self.process.stdout is not None
        data = self.process.stdout.read()
        if not data:
            raise TesseraError("the process that checks the features died: is memory short?")
        done, error = pickle.loads(data)
        if error is not None:
            raise error
        return done

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Forked:
    """A process that a template forked, for whoever asked for it: looks like a ``subprocess.Popen``.

    Raises:
        OSError: there is no template at ``address``.
    """

    def __init__(self, address: str, channel_fd: int, note_fd: int, told_fd: int) -> None:
        self.returncode: int | None = None
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.connection.settimeout(_ANSWER_S)
            self.connection.connect(address)
            request = pickle.dumps((dict(os.environ), os.getcwd()), 5)
            socket.send_fds(self.connection, [request], [channel_fd, note_fd, told_fd])
            self.pid = int(self.connection.recv(64) or 0)
            if not self.pid:
                raise ConnectionResetError("the template ended")
            self.handle = os.pidfd_open(self.pid)
        except BaseException:
            self.connection.close()
            raise
        self._close = weakref.finalize(self, _close, self.connection, self.handle)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative: the signal. 255 where the template, which knows it, is gone."""
        if self.returncode is None:
            if not select.select([self.connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("template", timeout or 0.0)
            told = b""
            with suppress(OSError):
                told = self.connection.recv(64)
            self.returncode = int(told or _UNKNOWN)
            self._close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)


def _close(connection: socket.socket, handle: int) -> None:
    connection.close()
    os.close(handle)


def serve(listener_fd: int, parent: int) -> None:
    """The process itself: prepares, tells what came of it, then forks for each that connects, until it is killed."""
    end_with(parent)
    call_itself("tessera-template")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=listener_fd)
    prepare, arguments = pickle.load(sys.stdin.buffer)
    try:
        told = pickle.dumps((prepare(*arguments), None), 5)
    except Exception as error:
        told = pickle.dumps((None, portable(error)), 5)
    sys.stdout.buffer.write(told)
    sys.stdout.buffer.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # its owner reads to the end
    pa.array([0])  # the first one of a process imports pandas, wherever that is installed
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all pages
    _Forks(listener).run()


class _Forks:
    """Who asked, and what was forked for them."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.by_pid: dict[int, socket.socket] = {}
        self.killed: set[int] = set()
        self.ended, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.ended, False)
        signal.set_wakeup_fd(self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        while True:
            waiting = {one: pid for pid, one in self.by_pid.items() if pid not in self.killed}
            asked: list[Any] = [self.listener, self.ended, *waiting]
            ready, _, _ = select.select(asked, [], [])
            if self.ended in ready:
                with suppress(BlockingIOError):
                    os.read(self.ended, 4096)
            for one in ready:
                if isinstance(one, socket.socket) and one is not self.listener:  # it says nothing more: it is gone
                    os.kill(waiting[one], signal.SIGKILL)
                    self.killed.add(waiting[one])
            self._reap()
            if self.listener in ready:
                with suppress(OSError, EOFError, pickle.UnpicklingError):
                    self._fork(self.listener.accept()[0])

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                connection = self.by_pid.pop(pid)
                self.killed.discard(pid)
                with suppress(OSError):
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                connection.close()

    def _fork(self, connection: socket.socket) -> None:
        connection.settimeout(_ANSWER_S)
        request, fds, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 3)
        template = os.getpid()
        pid = os.fork()
        if pid:
            for fd in fds:
                os.close(fd)
            self.by_pid[pid] = connection
            with suppress(OSError):
                connection.send(str(pid).encode())
            return
        try:  # the forked process
            self._leave(connection)
            environment, folder = pickle.loads(request)
            os.environ.clear()
            os.environ.update({**environment, **ONE_THREAD})
            with suppress(OSError):
                os.chdir(folder)
            channel_fd, note_fd, told_fd = fds
            os.dup2(told_fd, 2)
            os.close(told_fd)
            main(channel_fd, note_fd, template)
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)

    def _leave(self, connection: socket.socket) -> None:
        """What belongs to the template only."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (self.listener, connection, *self.by_pid.values()):
            one.close()
        os.close(self.ended)
        os.close(self.wake)
