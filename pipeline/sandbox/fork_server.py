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
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self

import pyarrow as pa

from pipeline.core import private_folder
from pipeline.core.errors import TesseraError, describe, one_line
from pipeline.sandbox.process_tree import adopt_orphans, children, kill_group, kill_orphans, kill_tree
from pipeline.sandbox.worker import die_with_parent, main, portable, set_process_name

_RUN = (
    "import sys; sys.path[:] = sys.argv[3:]; from pipeline.sandbox.fork_server import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)
_ANSWER_S = 30.0
_QUEUE = 4096
_FDS = 4
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a process that computes with one thread, and may fork: what has threads forks into locks that nobody
lets go."""
_UNTOUCHED = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""With it torch tells whether there is a GPU without starting CUDA, which does not survive a fork."""


class ForkServer:
    """The process, from its owner's side; a context manager. It ends with its owner, and those that it forked with it.

    Args:
        prepare: called in it first, with ``arguments``; what it imports is there for all.
    """

    def __init__(self, prepare: Callable[..., Any], *arguments: Any) -> None:
        self.folder = private_folder.make("template", longest=len("/template"))
        self.address = os.path.join(self.folder, "template")
        paths = [path or os.getcwd() for path in sys.path]
        self.told = tempfile.TemporaryFile()  # noqa: SIM115
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.address)
            listener.listen(_QUEUE)  # who asks before it is ready waits
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(listener.fileno()), str(os.getpid()), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.told,
                pass_fds=[listener.fileno()],
                env={**os.environ, **ONE_THREAD, **_UNTOUCHED},
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(pickle.dumps((prepare, arguments), 5))
            self.process.stdin.close()

    def prepared(self) -> Any:
        """What ``prepare`` returned, once it has. Raises what it raised, if that is an error told on purpose.

        Raises:
            TesseraError: the process died at it, or what it raised was nobody's purpose.
        """
        assert self.process.stdout is not None
        data = self.process.stdout.read()
        if not data:
            words = last_line(self.told) or "is memory short?"
            raise TesseraError(f"the process that checks the features ended: {words}")
        done, error = pickle.loads(data)
        if error is not None:
            raise error if isinstance(error, TesseraError) else TesseraError(describe(error)) from error
        return done

    def close(self) -> None:
        if self.process.poll() is None:
            kill_tree(self.process.pid, self.process.send_signal)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.told.close()
        private_folder.remove(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ForkedProcess:
    """A process that a template forked, for whoever asked for it: looks like a ``subprocess.Popen``.

    Raises:
        OSError: there is no template at ``address``, or it cannot fork.
    """

    def __init__(self, address: str, channel_fd: int, note_fd: int, told_fd: int) -> None:
        self.returncode: int | None = None
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.connection.settimeout(_ANSWER_S)
            self.connection.connect(address)
            with _file(pickle.dumps(_surroundings(), 5)) as request:
                socket.send_fds(self.connection, [b"?"], [channel_fd, note_fd, told_fd, request.fileno()])
                answer, fds, _, _ = socket.recv_fds(self.connection, 64, 2)
            if len(fds) != 2:
                raise ConnectionResetError("the template cannot fork")
        except BaseException:
            self.connection.close()
            raise
        self.pid, (self.handle, self.statm) = int(answer), fds
        self._close = weakref.finalize(self, _close, self.connection, self.handle)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative: the signal. Of a template that is gone, its forks were killed with it."""
        if self.returncode is None:
            if not readable([self.connection], timeout):
                raise subprocess.TimeoutExpired("template", timeout or 0.0)
            told = b""
            with suppress(OSError):
                told = self.connection.recv(64)
            self.returncode = int(told) if told else -signal.SIGKILL
            self._close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            kill_tree(self.pid, lambda number: signal.pidfd_send_signal(self.handle, number))


def _close(connection: socket.socket, handle: int) -> None:
    connection.close()
    os.close(handle)


def _surroundings() -> tuple[dict[str, str], str, int, int, set[int], int]:
    """What a process has of the one that started it."""
    umask = os.umask(0o077)
    os.umask(umask)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        score = int(file.read())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return dict(os.environ), os.getcwd(), score, nice, os.sched_getaffinity(0), umask


def _take_on(environment: dict[str, str], folder: str, score: int, nice: int, cores: set[int], umask: int) -> None:
    """The surroundings of whoever asked. The kernel is to end a decoder before the actor that it decodes for."""
    os.environ.clear()
    os.environ.update({**environment, **ONE_THREAD})
    os.umask(umask)
    with suppress(OSError):
        os.chdir(folder)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(score))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(OSError):
        os.sched_setaffinity(0, cores)


def _file(data: bytes) -> BinaryIO:
    """An open file of ``data`` without a name, at its beginning."""
    file = os.fdopen(os.memfd_create("tessera"), "w+b")
    file.write(data)
    file.flush()
    file.seek(0)
    return file


def readable(some: Sequence[Any], timeout: float | None = None) -> set[int]:
    """File descriptors of those that can be read, or are closed at the other end."""
    poll = select.poll()
    for one in some:
        poll.register(one, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout is None else 1000 * timeout)}


def last_line(file: Any) -> str:
    """Of what a process wrote into ``file``."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
    return one_line(file.read().decode(errors="replace").strip().rsplit("\n", 1)[-1])


def serve(listener_fd: int, parent: int) -> None:
    """The process itself: prepares, tells what came of it, then forks for each that connects, until it is killed."""
    die_with_parent(parent)
    adopt_orphans()
    set_process_name("tessera-template")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = os.dup(1)  # whatever an import prints is no part of it
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    listener = socket.socket(fileno=listener_fd)
    prepare, arguments = pickle.load(sys.stdin.buffer)
    try:
        told = pickle.dumps((prepare(*arguments), None), 5)
    except Exception as error:
        told = pickle.dumps((None, portable(error)), 5)
    with os.fdopen(answer, "wb") as owner:  # who reads to its end
        owner.write(told)
    pa.array([0])  # the first one of a process imports pandas, wherever that is installed
    if threads() > 1:
        return  # a fork would not be safe: what asks starts its processes by itself
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all pages
    _Forks(listener).run()


def threads() -> int:
    """Of this process, without the one of pyarrow's jemalloc, which takes care of forks."""
    names = []
    for one in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{one}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return sum(name != "jemalloc_bg_thd" for name in names)


class _Forks:
    """Who asks, who has asked, and what was forked for them."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.asking: list[socket.socket] = []
        self.by_pid: dict[int, socket.socket] = {}
        self.killed: set[int] = set()
        self.others = children()
        """What the imports started."""
        self.ended, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.ended, False)
        signal.set_wakeup_fd(self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        while True:
            waiting = {pid: one for pid, one in self.by_pid.items() if pid not in self.killed}
            ready = readable([self.listener, self.ended, *self.asking, *waiting.values()])
            if self.ended in ready:
                with suppress(BlockingIOError):
                    os.read(self.ended, 4096)
            for pid, one in waiting.items():
                if one.fileno() in ready:  # it says nothing more: it is gone
                    kill_tree(pid, lambda number, pid=pid: os.kill(pid, number))  # type: ignore[misc]
                    self.killed.add(pid)
            self._reap()
            for one in [one for one in self.asking if one.fileno() in ready]:
                self.asking.remove(one)
                self._answer(one)
            if self.listener.fileno() in ready:
                with suppress(OSError):
                    self.asking.append(self.listener.accept()[0])

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid = ended.si_pid
                kill_group(pid)  # before it is reaped: then its number may become another's
                _, status = os.waitpid(pid, 0)
                kill_orphans(self.others | {*self.by_pid} - {pid})
                self.killed.discard(pid)
                connection = self.by_pid.pop(pid, None)
                if connection is not None:
                    with suppress(OSError):
                        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                    connection.close()

    def _answer(self, connection: socket.socket) -> None:
        """Fork for whoever asks. Closes the connection where that cannot be done."""
        fds: list[int] = []
        try:
            _, fds, flags, _ = socket.recv_fds(connection, 16, _FDS)
            if len(fds) != _FDS or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                connection.close()
                return
            self._fork(connection, fds)
        except OSError:
            connection.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, connection: socket.socket, fds: list[int]) -> None:
        template = os.getpid()
        pid = os.fork()
        if not pid:
            self._be(connection, fds, template)
        self.by_pid[pid] = connection
        handles: list[int] = []
        try:  # before it can be reaped, and its number become another's
            handles.append(os.pidfd_open(pid))
            handles.append(os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC))
            socket.send_fds(connection, [str(pid).encode()], handles)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            self.by_pid.pop(pid).close()
        finally:
            for handle in handles:
                os.close(handle)

    def _be(self, connection: socket.socket, fds: list[int], template: int) -> NoReturn:
        """The forked process."""
        try:
            channel_fd, note_fd, told_fd, request_fd = fds
            os.dup2(told_fd, 2)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (self.listener, connection, *self.asking, *self.by_pid.values()):
                one.close()
            for fd in (self.ended, self.wake, told_fd):
                os.close(fd)
            with os.fdopen(request_fd, "rb") as request:
                _take_on(*pickle.load(request))
            main(channel_fd, note_fd, template)
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
