"""The fork server itself: runs ``prepare``, then forks a worker for each connection. It always has one thread."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import numpy.ma  # noqa: F401 - pyarrow imports it with the first numpy array, 25 ms that each worker would take

from pipeline.core.system import pandas_import
from pipeline.sandbox.fork_server import ONE_THREAD, readable
from pipeline.sandbox.process_tree import adopt_orphans, children, kill_group, kill_orphans, kill_tree
from pipeline.sandbox.worker import die_with_parent, main, portable, set_process_name

_REQUEST_FDS = 4
"""Files of a request: the worker's channel, task slot and standard error, and the state of the requesting process."""


def serve(listener_fd: int, parent: int) -> None:
    """Runs the fork server until it is killed.

    Reads ``prepare`` and its arguments from standard input, and writes the pickled (result, error) to standard output.
    Returns after that if this process has several threads, or has started CUDA, so that it cannot fork safely.

    Args:
        listener_fd: descriptor of the listening socket.
        parent: process id of the parent, with which this process ends.
    """
    die_with_parent(parent)
    adopt_orphans()
    set_process_name("tessera-forks")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result_fd = os.dup(1)  # standard output without what imports print
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 1)
    listener = socket.socket(fileno=listener_fd)
    pandas_import.skip()
    gc.disable()  # imported objects are not garbage: looking for some takes a twentieth of the time
    prepare, arguments = pickle.load(sys.stdin.buffer)
    try:
        result = pickle.dumps((prepare(*arguments), None), 5)
    except Exception as error:
        result = pickle.dumps((None, portable(error)), 5)
    with os.fdopen(result_fd, "wb") as output:  # closed here: the parent reads to its end
        output.write(result)
    torch = sys.modules.get("torch")
    if count_threads() > 1 or (torch is not None and torch.cuda.is_initialized()):
        return  # a process that then cannot connect starts its workers as new interpreters
    gc.enable()
    gc.collect()
    gc.freeze()  # otherwise a collection in a forked process would copy all pages
    _ForkLoop(listener).run()


def count_threads() -> int:
    """Returns the number of threads of this process, without that of pyarrow's jemalloc, which is safe to fork."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return sum(name != "jemalloc_bg_thd" for name in names)


class _ForkLoop:
    """Forks workers on request, and reports how they ended.

    Each worker has one connection. The requesting process sends its request over it, gets the process id back and, when
    the worker has ended, the exit code. If the requesting process closes it before, the worker is killed.

    Args:
        listener: the listening socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.pending: list[socket.socket] = []
        """Connections whose request has not come yet."""
        self.by_pid: dict[int, socket.socket] = {}
        self.killed: set[int] = set()
        self.kept = children()
        """Children that the imports started: they are not killed."""
        self.child_ended_fd, self.wakeup_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        os.set_blocking(self.child_ended_fd, False)
        signal.set_wakeup_fd(self.wakeup_fd)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serves connections until the process is killed."""
        while True:
            running = {pid: connection for pid, connection in self.by_pid.items() if pid not in self.killed}
            ready = readable([self.listener, self.child_ended_fd, *self.pending, *running.values()])
            if self.child_ended_fd in ready:
                with suppress(BlockingIOError):
                    os.read(self.child_ended_fd, 4096)
            for pid, connection in running.items():
                if connection.fileno() in ready:  # the other end sends nothing after its request: it is closed
                    kill_tree(pid, lambda number, pid=pid: os.kill(pid, number))  # type: ignore[misc]
                    self.killed.add(pid)
            self._reap()
            for connection in [connection for connection in self.pending if connection.fileno() in ready]:
                self.pending.remove(connection)
                self._handle_request(connection)
            if self.listener.fileno() in ready:
                with suppress(OSError):
                    self.pending.append(self.listener.accept()[0])

    def _reap(self) -> None:
        """Reaps the workers that ended, kills what they left, and sends their exit codes."""
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid = ended.si_pid
                kill_group(pid)  # before the process is reaped: afterwards its id may belong to another one
                _, status = os.waitpid(pid, 0)
                kill_orphans(self.kept | {*self.by_pid} - {pid})
                self.killed.discard(pid)
                connection = self.by_pid.pop(pid, None)
                if connection is not None:
                    with suppress(OSError):
                        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                    connection.close()

    def _handle_request(self, connection: socket.socket) -> None:
        """Reads a request and forks a worker for it. Closes the connection if that fails."""
        fds: list[int] = []
        try:
            _, fds, flags, _ = socket.recv_fds(connection, 16, _REQUEST_FDS)
            if len(fds) != _REQUEST_FDS or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                connection.close()
                return
            self._fork(connection, fds)
        except OSError:
            connection.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, connection: socket.socket, fds: list[int]) -> None:
        """Forks a worker. Sends its process id, with its pidfd and its open ``statm`` file."""
        server_pid = os.getpid()
        pid = os.fork()
        if not pid:
            self._run_worker(connection, fds, server_pid)
        self.by_pid[pid] = connection
        handles: list[int] = []
        try:  # before the worker can be reaped, and its id belong to another process
            handles.append(os.pidfd_open(pid))
            handles.append(os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC))
            socket.send_fds(connection, [str(pid).encode()], handles)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            self.by_pid.pop(pid).close()
        finally:
            for handle in handles:
                os.close(handle)

    def _run_worker(self, connection: socket.socket, fds: list[int], server_pid: int) -> NoReturn:
        """Runs the worker in the forked process, then ends the process."""
        try:
            channel_fd, slot_fd, stderr_fd, request_fd = fds
            os.dup2(stderr_fd, 2)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self.listener, connection, *self.pending, *self.by_pid.values()):
                inherited.close()
            for fd in (self.child_ended_fd, self.wakeup_fd, stderr_fd):
                os.close(fd)
            with os.fdopen(request_fd, "rb") as request:
                _apply_process_state(*pickle.load(request))
            main(channel_fd, slot_fd, server_pid)
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)


def _apply_process_state(
    environment: dict[str, str], folder: str, oom_score: int, nice: int, cores: set[int], umask: int
) -> None:
    """Gives this process the state of the one that requested it, see `fork_server._process_state`.

    The OOM score is part of it, so that the kernel kills a decoder before the actor that it decodes for.
    """
    os.environ.clear()
    os.environ.update({**environment, **ONE_THREAD})
    os.umask(umask)
    with suppress(OSError):
        os.chdir(folder)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(oom_score))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(OSError):
        os.sched_setaffinity(0, cores)
