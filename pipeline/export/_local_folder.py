"""A local folder that gets its name when it is complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil

from pipeline.core.errors import ConfigError, StorageError, describe


class LocalFolder:
    """Writes a folder under another name, and renames it at the end. A context manager.

    Everything is written below ``.NAME.partial-XXXX`` beside the folder. An interrupted export leaves at most this.

    Args:
        path: absolute. There is nothing, or an empty folder.
        out: as the user named it.

    Raises:
        ConfigError: a folder cannot be made beside it.
    """

    def __init__(self, path: str, out: str) -> None:
        self.path, self.out = path, out
        parent, name = os.path.split(path)
        self.staging = os.path.join(parent, f".{name[:40]}.partial-{secrets.token_hex(4)}")
        self.content = os.path.join(self.staging, "export")
        """The folder that is renamed."""
        self.scratch = os.path.join(self.staging, "scratch")

    def __enter__(self) -> LocalFolder:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.mkdir(self.staging)
            os.mkdir(self.content)
            os.mkdir(self.scratch)
        except OSError as error:
            self.__exit__()
            found = f"cannot write to {self.out!r} ({describe(error)})"
            raise ConfigError("OUT", found, "a folder that can be written") from error
        return self

    def publish(self) -> None:
        """Gives the folder its name. Raises ``ConfigError`` if something else has it by now, which is not replaced."""
        _write_through(self.content)
        try:
            os.rename(self.content, self.path)  # replaces an empty folder only
        except OSError as error:
            if os.path.lexists(self.path):
                raise ConfigError("OUT", f"{self.out!r} was made by another process", "another folder") from error
            raise StorageError(f"cannot write {self.out!r} ({describe(error)})") from error
        _sync(os.path.dirname(self.path))

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)


def check_new(path: str, out: str) -> None:
    """Raises ``ConfigError`` unless there is nothing at ``path``, or an empty folder.

    Args:
        path: absolute, without links.
        out: as the user named it.
    """
    allowed = "a new or an empty folder"
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise ConfigError("OUT", f"{out!r} is there already and is no folder", allowed)
    if os.path.ismount(path):  # it cannot be replaced
        raise ConfigError("OUT", f"{out!r} is where a file system is mounted", "a new folder in it")
    try:
        with os.scandir(path) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        raise StorageError(f"cannot list {out!r} ({error.strerror})") from error
    if not is_empty:
        raise ConfigError("OUT", f"{out!r} is not empty", allowed)


def _write_through(folder: str) -> None:
    """Waits until the files of a folder are on the disk, so that a power failure leaves no folder of empty files."""
    for place, _, files in os.walk(folder):
        for name in files:
            _sync(os.path.join(place, name))
        _sync(place)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
