"""Identifies the process that holds a lease: the boot of its machine, its start time, its PID namespace."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def boot_id() -> str:
    """Returns an id of the current boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def started_at(pid: int) -> float | None:
    """Returns the start time of a process in ticks since the boot, which do not change when the clock is set; None if
    there is no such process."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else float(rest[18])
    except OSError:
        pass
    try:
        return round(psutil.Process(pid).create_time(), 1) if not Path("/proc/self/stat").exists() else None
    except psutil.NoSuchProcess:
        return None


def pid_namespace() -> str:
    """Returns the PID namespace of this process."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
