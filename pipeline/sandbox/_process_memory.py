"""Measures the memory of a process, and limits that of this one."""

from __future__ import annotations

import mmap
import os
import resource
import time

_READ_INTERVAL_S = 0.02


class ProcessMemory:
    """The anonymous memory of a process: the part that it does not share with files or other processes.

    Args:
        pid: id of the process.
        fd: its open ``/proc/<pid>/statm``, owned by this object from now on; None: it is opened here.
    """

    def __init__(self, pid: int | str = "self", fd: int | None = None) -> None:
        self.fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC) if fd is None else fd
        self.hard_limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
        self.resident_bytes = 0
        self.read_at_s = -_READ_INTERVAL_S

    def anonymous_bytes(self) -> int:
        """Returns the resident bytes; 0 for a process that is gone."""
        return self._read()[0]

    def _read(self) -> tuple[int, int]:
        """Returns the resident anonymous bytes and the bytes of the data segment."""
        try:
            fields = os.pread(self.fd, 256, 0).split(b" ", 6)
        except ProcessLookupError:
            return 0, 0
        return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE, int(fields[5]) * mmap.PAGESIZE

    def limit(self, more_bytes: int) -> int:
        """Lets allocations of this process fail beyond ``more_bytes`` more than it has.

        The current size may be up to 20 ms old: to read it for each task would take more time than all else here.

        Args:
            more_bytes: bytes that may be allocated.

        Returns:
            ``anonymous_bytes``, as last read.
        """
        now = time.monotonic()
        if now - self.read_at_s >= _READ_INTERVAL_S:
            self.read_at_s = now
            self.resident_bytes, data_bytes = self._read()
            soft = data_bytes + more_bytes
            soft = soft if self.hard_limit < 0 else min(soft, self.hard_limit)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, self.hard_limit))
        return self.resident_bytes

    def unlimit(self) -> None:
        """Removes the limit."""
        resource.setrlimit(resource.RLIMIT_DATA, (self.hard_limit, self.hard_limit))
        self.read_at_s = -_READ_INTERVAL_S

    def close(self) -> None:
        """Closes the file; the limit stays."""
        os.close(self.fd)
