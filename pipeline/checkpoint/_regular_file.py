"""Checks that a file of a checkpoint is a regular file, without opening it."""

from __future__ import annotations

import os
import stat

from pipeline.core.errors import ConfigError, describe
from pipeline.storage.local_files import is_hole

_SYSTEM = ("/proc", "/sys", "/dev")
"""Folders of the kernel: their files are processes, devices and settings."""
_SHARED_MEMORY = "/dev/shm/"
"""An ordinary folder, if the checkpoint itself is in it."""


def check_file(path: str, where: str) -> int:
    """Returns the size of a regular file in bytes. Never blocks, since nothing is opened.

    Args:
        where: dotted path of the checkpoint in the config, for errors.

    Raises:
        ConfigError: not a regular file, unreadable, almost completely sparse, or in a folder of the kernel.
    """
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read ({describe(error)})", "copy the checkpoint again") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(where, f"{path} is {_kind(found.st_mode)}", "a file must be there")
    if is_hole(found):
        raise ConfigError(
            where, f"{path} has {found.st_size} bytes, and is nearly all hole", "copy the checkpoint again"
        )
    in_memory = all(one.startswith(_SHARED_MEMORY) for one in (real, os.path.abspath(path)))
    if not in_memory and any(real.startswith(f"{place}/") for place in _SYSTEM):
        raise ConfigError(where, f"{path} leads to {real}", "a file of the checkpoint must be there")
    return found.st_size


def _kind(mode: int) -> str:
    """Returns what a special file is, with an article."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
