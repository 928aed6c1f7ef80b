"""A worker process that is started as a new Python interpreter, where there is no fork server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress

from pipeline.sandbox.fork_server import ONE_THREAD, readable
from pipeline.sandbox.process_tree import kill_group, kill_tree

_RUN = (
    "import sys; sys.path[:] = sys.argv[4:]; from pipeline.sandbox.worker import main; main(*map(int, sys.argv[1:4]))"
)


class SpawnedProcess:
    """A worker process, started as a new Python interpreter. Its descendants are killed with it.

    Args:
        channel_fd: see `worker.main`.
        slot_fd: see `worker.main`.
        stderr_fd: descriptor of the file for the worker's standard error.
        variables: what its environment has besides that of this process.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, channel_fd: int, slot_fd: int, stderr_fd: int, variables: Mapping[str, str]) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(channel_fd), str(slot_fd), str(os.getpid()), *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr_fd,
            pass_fds=(channel_fd, slot_fd),
            env={**os.environ, **variables, **ONE_THREAD},
        )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._close = weakref.finalize(self, os.close, self._pidfd)

    @property
    def returncode(self) -> int | None:
        """The exit code, see ``wait``; None before the end of the process is noticed."""
        return self._popen.returncode

    def poll(self) -> int | None:
        """Returns the exit code, see ``wait``; None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Waits for the end of the process.

        Args:
            timeout: seconds.

        Returns:
            the exit code; negative: the number of the signal that killed the process.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        if self._popen.returncode is None:
            if not readable([self._pidfd], timeout):
                raise subprocess.TimeoutExpired(_RUN, timeout)
            kill_group(self.pid)  # before the process is reaped: afterwards its id may belong to another one
            self._popen.wait()
            self._close()
        return int(self._popen.returncode)

    def kill(self) -> None:
        """Kills the process and its descendants."""
        if self.poll() is None:
            kill_tree(self.pid, lambda number: signal.pidfd_send_signal(self._pidfd, number))
