"""Folders for a while that only this user may enter: their names cannot be known before, and none stays for ever.

A process that is killed leaves its folder behind. It held a lock on it, which ended with the process: the next one that
makes a folder removes those without a lock.
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
"""A socket's path may not be longer: man 7 unix."""
_FRESH_S = 60.0
_locks: dict[str, int] = {}


def make(kind: str, place: str | None = None, longest: int = 0) -> str:
    """A new folder ``tessera-<kind>-<random>``, of mode 0700.

    Args:
        place: where; None: the system's temporary folder, or ``/tmp`` where sockets below that have too long a path.
        longest: characters that a socket's path has below the folder.

    Raises:
        OSError: it cannot be made.
    """
    prefix = f"tessera-{kind}-"
    if place is None:
        place = tempfile.gettempdir()
        if longest and len(os.path.join(place, prefix)) + 8 + longest > SOCKET_BYTES:
            place = "/tmp"
    else:
        os.makedirs(place, exist_ok=True)
    _remove_left(place, prefix)
    folder = tempfile.mkdtemp(prefix=prefix, dir=place)
    _locks[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(_locks[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
    return folder


def remove(folder: str) -> None:
    """Removes a folder that `make` made, with what is in it. Processes that still end may write there meanwhile."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)
    lock = _locks.pop(folder, None)
    if lock is not None:
        os.close(lock)


def _remove_left(place: str, prefix: str) -> None:
    """Removes what processes of this user left behind. Never follows a link, and waits for nobody."""
    with suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(prefix):
                with suppress(OSError):
                    _remove_unlocked(os.path.join(place, name))


def _remove_unlocked(folder: str) -> None:
    found = os.lstat(folder)
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
    if not ours or time.time() - found.st_mtime < _FRESH_S:  # one that is being made has no lock yet
        return
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
