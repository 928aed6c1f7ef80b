"""Accesses local files below a folder without following symbolic links.

Each function takes the folder (``root``, which may be a link since the user named it) and a path relative to it, with
``/`` between the names. The folders of the path are opened one by one, each relative to the one before, so that a link
which another process creates at the same time is not followed either.
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


_SMALL_BYTES, _SPARSE_RATIO = 64 << 20, 64
"""A file over this size is sparse if its size is over this many times its bytes on the disk."""
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def parent(root: str, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """Context manager of the descriptor of the folder that holds ``path``, and the name in it.

    Args:
        make: create missing folders.

    Raises:
        FileNotFoundError: a folder of the path is missing.
        RefusedFile: a folder of the path is a link, or ``path`` leads out of ``root``.
    """
    folder = open_parent(root, path, make)
    try:
        yield folder, path.rpartition("/")[2]
    finally:
        os.close(folder)


def open_parent(root: str, path: str, make: bool = False) -> int:
    """Returns the descriptor of the folder that holds ``path``, which the caller closes. See `parent`."""
    *folders, name = path.split("/")
    if not _are_names([*folders, name]):
        raise RefusedFile(f"{path!r} is not a path below {root!r}")
    if make:
        os.makedirs(root, exist_ok=True)
    held, at = os.open(root, _FOLDER_FLAGS), root
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
    """Returns the status of ``path``, a regular file or a folder.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        RefusedFile: ``path`` or a folder of it is a link; ``path`` is a pipe, a socket or a device.
    """
    with parent(root, path) as (folder, name):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    _check_kind(found.st_mode, f"{root}/{path}")
    return found


def read(root: str, path: str, limit: int) -> bytes:
    """Returns all bytes of a regular file. Raises the errors of `check`, and ``RefusedFile`` for over ``limit``
    bytes."""
    with open(open_file(root, path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise RefusedFile(f"{root}/{path} has more than {limit} bytes")
    return data


def open_file(root: str, path: str) -> int:
    """Returns the descriptor of a regular file, opened for reading; the caller closes it. Raises the errors of
    `check`."""
    with parent(root, path) as (folder, name):
        _check_kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode, f"{root}/{path}")
        # without O_NONBLOCK, opening would block if a pipe has replaced the file
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
    """Returns (name, whether it is a folder) of each entry of a folder. A link is never a folder.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: ``path`` is a file.
        RefusedFile: ``path`` is a link.
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
    """Returns whether a file is almost completely sparse: it has a large size, and few bytes on the disk.

    False on file systems that report 0 blocks, since they do not count them.
    """
    return status.st_size > _SMALL_BYTES and 0 < status.st_blocks * 512 * _SPARSE_RATIO < status.st_size


def remove(root: str, path: str) -> None:
    """Deletes a file; for a link, the link itself."""
    with parent(root, path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_folder(root: str, path: str) -> None:
    """Deletes a folder with its contents, or a file. Links are deleted, not followed."""
    with parent(root, path) as (folder, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _delete_contents(opened)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=folder)


def remove_empty_folder(root: str, path: str) -> None:
    """Deletes a folder if it is empty. Does nothing otherwise."""
    with parent(root, path) as (folder, name):
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise


def _delete_contents(folder: int) -> None:
    """Deletes the contents of an open folder.

    Nested folders are first moved up into it: in a tree of thousands of levels the paths are too long, and one
    descriptor per level exceeds the process's limit.
    """
    mark, count = secrets.token_hex(8), 0
    todo = _delete_files(folder)
    while todo:
        name = todo.pop()
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            for below in _delete_files(opened):
                todo.append(f"{mark}-{count}")
                count += 1
                os.rename(below, todo[-1], src_dir_fd=opened, dst_dir_fd=folder)
        finally:
            os.close(opened)
        os.rmdir(name, dir_fd=folder)


def _delete_files(folder: int) -> list[str]:
    """Deletes the files and links in an open folder. Returns the names of the folders in it."""
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in entries if is_folder]


def move(root: str, source: str, target: str) -> None:
    """Renames a file. Replaces an existing one; creates missing folders."""
    with parent(root, source) as (origin, name), parent(root, target, make=True) as (folder, to):
        _check_kind(os.stat(name, dir_fd=origin, follow_symlinks=False).st_mode, f"{root}/{source}")
        os.rename(name, to, src_dir_fd=origin, dst_dir_fd=folder)


def _are_names(parts: list[str]) -> bool:
    """Returns whether all ``parts`` of a path are names of files."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in parts)


def _open_folder(name: str, above: int, path: str) -> int:
    """Returns the descriptor of the folder ``name`` in the open folder ``above``. ``path`` is for errors."""
    try:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)
    except OSError:
        _check_kind(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode, path)
        raise


def _check_kind(mode: int, path: str) -> None:
    """Raises ``RefusedFile`` unless ``mode`` is that of a regular file or a folder."""
    if stat.S_ISLNK(mode):
        raise RefusedFile(
            f"{path!r} is a symbolic link, which is never followed inside a dataset: put there what it points to"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise RefusedFile(f"{path!r} is not a regular file")
