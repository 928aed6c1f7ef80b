"""Kills a process together with all its descendants: a program that a decoder starts must not outlive the decoder."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36
_MAX_SCANS = 8
"""Scans for descendants. A process may start another one between two scans; each scan stops what it found."""


def adopt_orphans() -> None:
    """Makes this process the parent of each descendant whose own parent ends, in whatever session it is.

    Without it, such a descendant becomes a child of the machine's first process and cannot be found any more.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_session() -> None:
    """Moves this process and its future children into a new session and process group, without a terminal."""
    os.setsid()
    adopt_orphans()


def kill_tree(pid: int, send: Callable[[int], None]) -> None:
    """Kills a process and all its descendants, in whatever session they are. A process that is gone is no error.

    Args:
        pid: id of the process. It must not be reaped yet, so that its id does not belong to another process.
        send: sends a signal number to the process itself.
    """
    with suppress(ProcessLookupError):
        send(signal.SIGSTOP)
        found: set[int] = set()
        for _ in range(_MAX_SCANS):
            new = descendants(pid) - found
            if not new:
                break
            found |= new
            for descendant in new:
                _send(descendant, signal.SIGSTOP)
        for descendant in found:
            _send(descendant, signal.SIGKILL)
        kill_group(pid)
        send(signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kills the process group that ``leader`` leads, if it leads one.

    Args:
        leader: id of a process that is not reaped yet, see `kill_tree`.
    """
    with suppress(OSError):
        if os.getpgid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)


def kill_orphans(kept: set[int]) -> None:
    """Kills the children of this process except ``kept``, and their descendants.

    Args:
        kept: ids of the children that continue.
    """
    for pid in children() - kept:
        kill_tree(pid, lambda number, pid=pid: os.kill(pid, number))  # type: ignore[misc]


def children() -> set[int]:
    """Returns the ids of the children of this process."""
    return _children(os.getpid())


def descendants(pid: int) -> set[int]:
    """Returns the ids of all processes below ``pid``; an empty set if it is gone."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        new = _children(todo.pop()) - found
        found |= new
        todo += new
    return found


def _children(pid: int) -> set[int]:
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)
    except OSError:
        return set()
    found: set[int] = set()
    for thread in threads:
        try:
            with open(f"{folder}/{thread}/children", encoding="ascii") as file:
                found.update(map(int, file.read().split()))
        except FileNotFoundError:
            if not os.path.exists(f"{folder}/{thread}"):
                continue
            return _children_by_scan(pid)  # the kernel is built without `children` files
        except OSError:
            continue
    return found


def _children_by_scan(pid: int) -> set[int]:
    """Returns the ids of the children of ``pid`` from a scan of all processes of the machine."""
    import psutil  # takes 40 ms, and each worker imports this module

    with suppress(psutil.Error):
        return {child.pid for child in psutil.Process(pid).children()}
    return set()


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
