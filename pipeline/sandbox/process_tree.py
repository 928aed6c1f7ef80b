"""A process together with everything that it started: one that a decoder starts must not outlive the decoder."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 8
"""A process may start another between two looks; those that were found are stopped before the next look."""


def adopt_orphans() -> None:
    """From now on a descendant of this process whose parent ends becomes this one's child, whatever session it is in:
    without it, it would become a child of the machine's first process, and nobody could find it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_session() -> None:
    """Puts this process, and with it what it starts, into a session and a process group of its own, without a
    terminal."""
    os.setsid()
    adopt_orphans()


def kill_tree(pid: int, send: Callable[[int], None]) -> None:
    """Kills a process and all its descendants, in whatever session they are.

    Args:
        pid: not reaped yet, so that its number is not another's.
        send: sends a signal to the process itself.
    """
    with suppress(ProcessLookupError):
        send(signal.SIGSTOP)
        found: set[int] = set()
        for _ in range(_ROUNDS):
            more = descendants(pid) - found
            if not more:
                break
            found |= more
            for one in more:
                _send(one, signal.SIGSTOP)
        for one in found:
            _send(one, signal.SIGKILL)
        kill_group(pid)
        send(signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kills the process group that ``leader`` leads, if it leads one. It is not reaped yet, see `kill_tree`."""
    with suppress(OSError):
        if os.getpgid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)


def kill_orphans(kept: set[int]) -> None:
    """Kills the children of this process but ``kept``, and their descendants."""
    for pid in children() - kept:
        kill_tree(pid, lambda number, pid=pid: os.kill(pid, number))  # type: ignore[misc]


def children() -> set[int]:
    """Ids of the children of this process."""
    return _children(os.getpid())


def descendants(pid: int) -> set[int]:
    """Ids of the processes below ``pid``; of those that are gone, none."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        more = _children(todo.pop()) - found
        found |= more
        todo += more
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
            return _children_by_parent(pid)  # a kernel that does not list them
        except OSError:
            continue
    return found


def _children_by_parent(pid: int) -> set[int]:
    """The same by a look at all processes of the machine."""
    import psutil  # 40 ms, in each process that starts

    with suppress(psutil.Error):
        return {child.pid for child in psutil.Process(pid).children()}
    return set()


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
