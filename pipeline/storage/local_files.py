"""Local files below a folder, reached without following a symbolic link.

Each function takes the folder (``root``, which may itself be a link: the user named it) and a path below it with ``/``
between its parts. Folders on the way are opened one inside the other, so a link that another process puts there
meanwhile is not followed either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from pipeline.core.errors import StorageError


class RefusedFile(StorageError):
    """A link, a pipe, a socket, a device, a path that leads out of its folder, or a file that is too large."""


_SMALL_BYTES, _HOLE_RATIO = 64 << 20, 64
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def parent(root: str, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder that holds ``path``, and the name in it.

    Args:
        make: create the folders that are missing.

    Raises:
        FileNotFoundError: a folder on the way is missing.
        RefusedFile: one is a link, or ``path`` does not stay below ``root``.
    """
    folder = open_parent(root, path, make)
    try:
        yield folder, path.rpartition("/")[2]
    finally:
        os.close(folder)


def open_parent(root: str, path: str, make: bool = False) -> int:
    """The descriptor of the folder that holds ``path``; see `parent`. The caller closes it."""
    *folders, name = path.split("/")
    if not _are_names([*folders, name]):
        raise RefusedFile(f"{path!r} is not a path below {root!r}")
    if make:
        os.makedirs(root, exist_ok=True)
    held, at = os.open(root, _FOLDER), root
    try:
        for folder in folders:
            at = f"{at}/{folder}"
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=held)
            below = _open_folder(folder, held, at)
            os.close(held)
            held = below
    except BaseException:
        os.close(held)
        raise
    return held


def check(root: str, path: str) -> os.stat_result:
    """What ``path`` is: a regular file or a folder.

    Raises:
        FileNotFoundError: nothing is there.
        RefusedFile: it, or a folder on the way, is a link; or it is a pipe, a socket or a device.
    """
    with parent(root, path) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    _check_kind(found.st_mode, f"{root}/{path}")
    return found


def read(root: str, path: str, limit: int) -> bytes:
    """All bytes of a regular file. Raises as `check` does, and ``RefusedFile`` for more than ``limit`` bytes."""
    with open(open_file(root, path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise RefusedFile(f"{root}/{path} has more than {limit} bytes")
    return data


def open_file(root: str, path: str) -> int:
    """The descriptor of a regular file, open for reading; the caller closes it. Raises as `check` does."""
    with parent(root, path) as (folder, name):
        _check_kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode, f"{root}/{path}")
        # without O_NONBLOCK, a pipe that takes the file's place meanwhile would wait for a writer
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise RefusedFile(f"{root}/{path} became a symbolic link") from error
    try:
        _check_kind(os.fstat(opened).st_mode, f"{root}/{path}")
    except BaseException:
        os.close(opened)
        raise
    return opened


def entries(root: str, path: str = "") -> list[tuple[str, bool]]:
    """(name, whether it is a folder) of each entry of a folder; a link is none, whatever it points to.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: a file.
        RefusedFile: a link.
    """
    if not path:
        opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        with parent(root, path) as (above, name):
            folder = _open_folder(name, above, f"{root}/{path}")
        try:
            opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    try:
        with os.scandir(opened) as found:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    finally:
        os.close(opened)


def is_hole(status: os.stat_result) -> bool:
    """True for a file that is nearly all hole: it claims any size, and takes no room on the disk. File systems that do
    not count blocks say 0."""
    return status.st_size > _SMALL_BYTES and 0 < status.st_blocks * 512 * _HOLE_RATIO < status.st_size


def remove(root: str, path: str) -> None:
    """Delete a file; of a link, the link itself."""
    with parent(root, path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_folder(root: str, path: str) -> None:
    """Delete a folder with all that is in it. Links are deleted, not followed; so is anything that is no folder."""
    with parent(root, path) as (folder, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _empty(opened)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=folder)


def _empty(folder: int) -> None:
    """Deletes all that is in an open folder. Deeper folders are moved up first: a tree of thousands of levels has paths
    that are too long, and a descriptor for each level would exceed the process's limit."""
    mark, count = secrets.token_hex(8), 0
    todo = _unlinked(folder)
    while todo:
        name = todo.pop()
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            for below in _unlinked(opened):
                todo.append(f"{mark}-{count}")
                count += 1
                os.rename(below, todo[-1], src_dir_fd=opened, dst_dir_fd=folder)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=folder)


def _unlinked(folder: int) -> list[str]:
    """Deletes the files and links of an open folder; returns the names of the folders in it."""
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in entries if is_folder]


def move(root: str, source: str, target: str) -> None:
    """Rename a file; replaces one that is there."""
    with parent(root, source) as (origin, name), parent(root, target, make=True) as (folder, to):
        _check_kind(os.stat(name, dir_fd=origin, follow_symlinks=False).st_mode, f"{root}/{source}")
        os.rename(name, to, src_dir_fd=origin, dst_dir_fd=folder)


def _are_names(parts: list[str]) -> bool:
    return all(part not in ("", ".", "..") and "\0" not in part for part in parts)


def _open_folder(name: str, above: int, path: str) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except OSError:
        _check_kind(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode, path)
        raise


def _check_kind(mode: int, path: str) -> None:
    if stat.S_ISLNK(mode):
        raise RefusedFile(
            f"{path!r} is a symbolic link, which is never followed inside a dataset: put there what it points to"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RefusedFile(f"{path!r} is not a regular file")
