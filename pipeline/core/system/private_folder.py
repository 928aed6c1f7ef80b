"""Temporary folders with unpredictable names that only this user can enter.

A process holds a lock on each of its folders. If it is killed, the folder remains, and the lock ends. The next process
that creates a folder removes the folders without a lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress

SOCKET_BYTES = 107
"""Maximum length of the path of a socket (man 7 unix)."""
_FRESH_S = 60.0
"""Folders that were changed within this time are not removed: a new one is not locked yet."""
_locks: dict[str, int] = {}
"""Folder -> locked descriptor."""


def make(kind: str, place: str | None = None, longest: int = 0) -> str:
    """Creates a folder ``tessera-<kind>-<random>`` of mode 0700, and locks it.

    Args:
        place: its parent; None: the system's temporary folder, or ``/tmp`` if the paths of sockets would be too long.
        longest: maximum length of a socket's path relative to the folder; 0: no sockets.

    Raises:
        OSError: the folder cannot be created.
    """
    prefix = f"tessera-{kind}-"
    if place is None:
        place = tempfile.gettempdir()
        if longest and len(os.path.join(place, prefix)) + 8 + longest > SOCKET_BYTES:
            place = "/tmp"
    else:
        os.makedirs(place, exist_ok=True)
    _remove_abandoned(place, prefix)
    folder = tempfile.mkdtemp(prefix=prefix, dir=place)
    _locks[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(_locks[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
    return folder


def of_user_cache(name: str) -> str | None:
    """Returns the folder ``tessera/<name>`` in the user's cache folder, created with mode 0700 if it is missing.

    None: it cannot be created, or other users can write to it and could have put files there.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "tessera", name)
    with suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
        if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, 7):
            return folder
    return None


def remove(folder: str) -> None:
    """Removes a folder that `make` created, with its contents. Retries while processes that are ending write to it."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)
    lock = _locks.pop(folder, None)
    if lock is not None:
        os.close(lock)


def _remove_abandoned(place: str, prefix: str) -> None:
    """Removes folders of this user's processes that ended without removing them. Follows no link and never blocks."""
    with suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(prefix):
                with suppress(OSError):
                    _remove_unlocked(os.path.join(place, name))


def _remove_unlocked(folder: str) -> None:
    """Removes a folder of this user unless it is locked or new."""
    found = os.lstat(folder)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
    if not is_ours or time.time() - found.st_mtime < _FRESH_S:
        return
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
