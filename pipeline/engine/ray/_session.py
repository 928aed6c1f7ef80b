"""The private folder and the token of a Ray that this process starts."""

from __future__ import annotations

import atexit
import os
import secrets
from contextlib import suppress

import psutil
import ray

from pipeline.core.system import private_folder

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that name a token."""
_ENDING_S = 5.0
"""Longest wait for killed processes."""
_SOCKET_CHARACTERS = len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Length of what Ray appends to its folder. Paths of sockets are limited."""


def make_session_folder() -> str:
    """Creates the folder for Ray's sockets and logs, and returns its path. It is deleted when this process ends.

    Its parent is accessible to this user only, since Ray lets every user write to its own folder.

    Raises:
        OSError: it cannot be created.
    """
    folder = private_folder.make("ray", os.environ.get("RAY_TMPDIR"), longest=_SOCKET_CHARACTERS)
    atexit.register(_end_session, folder, os.getpid())
    return os.path.join(folder, "r")


def make_token() -> None:
    """Creates the token of Ray, unless the environment names one. It is deleted when this process ends.

    The token lets its owner run code on the cluster. Ray would write it to the home folder, where others may read it.

    Raises:
        OSError: it cannot be written.
    """
    if any(name in os.environ for name in (*TOKEN_VARIABLES, "RAY_AUTH_MODE")):
        return
    folder = private_folder.make("token")
    path = os.path.join(folder, "auth_token")
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = path
    atexit.register(_remove_token, folder, os.getpid())


def _remove_token(folder: str, owner: int) -> None:
    """Deletes the token, unless this is a fork of the process ``owner``."""
    if os.getpid() == owner:
        private_folder.remove(folder)


def _end_session(folder: str, owner: int) -> None:
    """Ends Ray and deletes its folder, unless this is a fork of the process ``owner``."""
    if os.getpid() == owner:
        ray.shutdown()
        _kill_daemons(folder)
        private_folder.remove(folder)


def _kill_daemons(folder: str) -> None:
    """Kills Ray's processes that `ray.shutdown` does not know, since a signal ended Ray's start: they would write into
    ``folder`` while it is deleted."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(folder in argument for argument in child.cmdline()):
                child.kill()
                found.append(child)
    psutil.wait_procs(found, timeout=_ENDING_S)
