"""A cgroup of this machine with a limit of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.core.system import cgroups


@dataclass(frozen=True)
class MemoryCgroup:
    """Its folder."""

    folder: Path

    @property
    def processes(self) -> Path:
        """The file that takes a process into the cgroup."""
        return self.folder / "cgroup.procs"

    def limit(self, size: int) -> None:
        """Sets the limit, in bytes."""
        name = "memory.max" if (self.folder / "memory.max").exists() else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(size))


@contextmanager
def memory_cgroup(size: int) -> Iterator[MemoryCgroup]:
    """Makes a cgroup with a limit of ``size`` bytes. Skips the test where that is not allowed."""
    made = MemoryCgroup(cgroups.folders("memory")[0] / f"tessera-test-{os.getpid()}")
    try:
        made.folder.mkdir()
        made.limit(size)
    except OSError as error:
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    try:
        yield made
    finally:
        deadline = time.monotonic() + 30
        while made.processes.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        made.folder.rmdir()
