"""Lists, reads, moves and removes files on any fsspec URL. A local folder, S3 and memory behave alike.

The argument ``root`` of the functions is a folder above ``url``. If it is given, no symbolic link below it is followed
(`pipeline.storage.local_files`); object stores have no links. `pipeline.dataset.commit.folder` passes it for all files
of a dataset.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage import local_files
from pipeline.storage._dataset_errors import dataset_errors, split_at_root
from pipeline.storage.retry import retried
from pipeline.storage.urls import is_local, split

MAX_READ_BYTES = 256 << 20
"""Maximum size of a file that is read into memory as a whole. A snapshot of a dataset of billions of rows is
smaller."""


def exists(url: str, root: str | None = None) -> bool:
    """Returns whether ``url`` is a file or a folder."""
    with dataset_errors("reach", url):
        if root is not None and is_local(root):
            try:
                return bool(local_files.check(*split_at_root(url, root)))
            except FileNotFoundError:
                return False
        return retried(lambda: exists_now(url))


def is_file(url: str, root: str | None = None) -> bool:
    """Returns whether ``url`` is a file. On an object store a prefix of other keys is not."""
    fs, path = split(url)

    with dataset_errors("reach", url):
        try:
            if root is not None and is_local(root):
                return stat.S_ISREG(local_files.check(*split_at_root(url, root)).st_mode)
            return bool(retried(lambda: _fresh_info(fs, path))["type"] == "file")
        except FileNotFoundError:
            return False


def _fresh_info(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Returns fsspec's info of a file or folder, without its cached listings."""
    fs.invalidate_cache(path)
    fs.invalidate_cache(fs._parent(path))
    found: dict[str, Any] = fs.info(path)
    return found


def remote_info(url: str) -> dict[str, Any]:
    """Returns fsspec's info of a file that is not on this machine.

    Raises:
        FileNotFoundError: no such file.
        StorageError: it cannot be read.
    """
    fs, path = split(url)
    with dataset_errors("read", url, pass_missing=True):
        return retried(lambda: _fresh_info(fs, path))


def remote_version(info: Mapping[str, Any]) -> str:
    """Returns what changes with the content of a remote file, from the file system's listing: its etag or version id,
    otherwise its size and modification time."""
    for key in ("ETag", "etag", "VersionId", "version_id", "generation", "md5Hash"):
        if info.get(key):
            return str(info[key]).strip('"')
    times = (info.get(key) for key in ("LastModified", "last_modified", "mtime", "modified", "updated", "created"))
    return f"{info.get('size')}-{next((str(time) for time in times if time is not None), '')}"


def exists_now(url: str) -> bool:
    """Returns whether ``url`` exists, without cached listings and without retries. Raises the file system's errors."""
    fs, path = split(url)
    fs.invalidate_cache(fs._parent(path))  # a cached listing lacks files that other processes wrote
    if type(fs).exists is not fsspec.AbstractFileSystem.exists:
        return bool(fs.exists(path))
    try:  # the default implementation of fsspec returns False for any error
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def read_bytes(url: str, limit: int = MAX_READ_BYTES, root: str | None = None) -> bytes:
    """Returns all bytes of a file.

    Raises:
        FileNotFoundError: no such file.
        StorageError: it has more than ``limit`` bytes, or cannot be read.
    """
    fs, path = split(url)

    def read() -> bytes:
        info = _fresh_info(fs, path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
        size = int(info["size"])
        # object stores reject a range of an empty file; the file may have been replaced after the call above
        data: bytes = fs.cat_file(path, start=0, end=limit + 1) if 0 < size <= limit else b""
        if max(size, len(data)) > limit:
            raise local_files.RefusedFile(f"{url!r} has more than {limit} bytes")
        return data

    with dataset_errors("read", url, pass_missing=True):
        if isinstance(fs, LocalFileSystem):
            below = os.path.split(os.path.realpath(path)) if root is None else split_at_root(url, root)
            return local_files.read(*below, limit)
        return retried(read)


def list_files(url: str, suffix: str = "", root: str | None = None) -> list[str]:
    """Returns the sorted names of the files directly in the folder ``url``; empty if the folder does not exist.

    With ``root``, links and special files count as files.
    """
    try:
        found = _entries(url, root)
    except FileNotFoundError:
        return []
    return sorted(name for name, kind in found if kind == "file" and name.endswith(suffix))


def list_folders(url: str, root: str | None = None) -> list[str]:
    """Returns the sorted names of the folders directly in the folder ``url``; empty if it does not exist.

    With ``root``, links are left out.
    """
    try:
        found = _entries(url, root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name, kind in found if kind == "directory")


def _entries(url: str, root: str | None) -> list[tuple[str, str]]:
    """Returns (name, ``file``, ``directory`` or another kind) of each entry of a folder. Raises the errors of
    `entries`."""
    if root is not None and is_local(root):
        with dataset_errors("list", url, pass_missing=True):
            found = local_files.entries(*split_at_root(url, root))
        return [(name, "directory" if is_folder else "file") for name, is_folder in found]
    return [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry["type"]) for entry in entries(url)]


def entries(url: str) -> list[dict[str, Any]]:
    """Returns fsspec's info of each entry of a folder, without cached listings.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: ``url`` is a file.
        StorageError: the folder cannot be listed.
    """
    fs, path = split(url)

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = fs.ls(path, detail=True, refresh=True)
        return found

    with dataset_errors("list", url, pass_missing=True):
        return retried(listed)


def remove(url: str, root: str | None = None) -> None:
    """Deletes a file, if it exists. Raises ``StorageError``."""
    fs, path = split(url)
    with dataset_errors("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove(*split_at_root(url, root))
        else:
            retried(lambda: fs.rm_file(path))


def move(source: str, target: str, root: str | None = None) -> None:
    """Moves a file within one file system. Raises ``StorageError``.

    Idempotent: succeeds if another process has moved the file already.
    """
    fs, path = split(source)
    to = split(target)[1]
    with dataset_errors("move", source):
        try:
            if root is not None and isinstance(fs, LocalFileSystem):
                folder, below = split_at_root(source, root)
                local_files.move(folder, below, split_at_root(target, root)[1])
            elif isinstance(fs, LocalFileSystem):
                os.makedirs(os.path.dirname(to), exist_ok=True)
                os.replace(path, to)
            else:
                retried(lambda: fs.cp_file(path, to))  # `copy` expands globs, and treats prefixes as folders
                retried(lambda: fs.rm_file(path))
        except FileNotFoundError:
            if not is_file(target, root):
                raise


def remove_folder(url: str, root: str | None = None) -> None:
    """Deletes a folder with its contents, if it exists. Raises ``StorageError``."""
    fs, path = split(url)
    with dataset_errors("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove_folder(*split_at_root(url, root))
        else:
            retried(lambda: _remove_tree(fs, path))


def _remove_tree(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Deletes a folder with its contents. Glob characters in ``path``, which `rm` would expand, are plain
    characters."""
    if not glob.has_magic(path):
        fs.rm(path, recursive=True)
        return
    fs.invalidate_cache(path)
    for file in fs.find(path):
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(file)


def remove_empty_folder(url: str, root: str) -> None:
    """Deletes a local folder if it is empty. Does nothing otherwise; object stores have no folders. Raises
    ``StorageError``."""
    if is_local(root):
        with dataset_errors("remove", url), contextlib.suppress(FileNotFoundError):
            local_files.remove_empty_folder(*split_at_root(url, root))
