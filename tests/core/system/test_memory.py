"""The memory that a process may use: the machine's, and the limits of its cgroups."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from pipeline.core.system import memory
from tests.support import ROOT
from tests.support.memory_cgroup import memory_cgroup

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


def test_a_real_cgroup() -> None:
    script = "from pipeline.core.system.memory import available_memory; print(available_memory())"
    with memory_cgroup(1 << 30) as group:
        command = f"echo $$ > {group.processes} && exec {sys.executable} -c '{script}'"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"{1 << 30}\n"
