"""The memory that a process may use: the machine's, and the limits of its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.core.system import cgroups, memory
from tests.support import ROOT

MACHINE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"memory.max": "max\n"}, MACHINE),
        ({"memory.max": "1073741824\n"}, 1 << 30),
        ({"memory.max": "max\n", "../memory.max": "2147483648\n"}, 2 << 30),
        ({"memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ({"memory.limit_in_bytes": "1073741824\n"}, 1 << 30),
        ({"memory.max": "a lot\n"}, MACHINE),
    ],
)
def test_limits_of_cgroups(in_cgroup: Callable[[dict[str, str]], None], files: dict[str, str], expected: int) -> None:
    in_cgroup(files)
    assert memory.available_memory() == expected


@pytest.fixture
def limited() -> Iterator[Path]:
    """A cgroup of this machine with a gibibyte, where one can be made: the file that takes a process into it."""
    here = cgroups.folders("memory")[0]
    folder = here / f"tessera-test-{os.getpid()}"
    try:
        folder.mkdir()
        name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
        (folder / name).write_text(str(1 << 30))
    except OSError as error:
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    yield folder / "cgroup.procs"
    folder.rmdir()


def test_a_real_cgroup(limited: Path) -> None:
    script = "from pipeline.core.system.memory import available_memory; print(available_memory())"
    command = f"echo $$ > {limited} && exec {sys.executable} -c '{script}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"{1 << 30}\n"
