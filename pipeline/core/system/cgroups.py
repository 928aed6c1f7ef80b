"""The cgroups of this process, which limit its CPU time and memory in containers and under systemd and Slurm."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def folders(controller: str) -> list[Path]:
    """Returns the folders of the cgroup of this process and of those above it.

    Args:
        controller: such as ``cpu``. In cgroups of version 1 each controller has a tree of its own; both versions may be
            mounted. In a container the cgroup may be the root of a tree.
    """
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _ROOT / controllers if controllers else _ROOT
            here = root / name.lstrip("/")
            found += [folder for folder in (here, *here.parents) if folder == root or root in folder.parents]
    return found or [_ROOT]
