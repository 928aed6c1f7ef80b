"""Files on any fsspec URL: list, read, publish whole or not at all.

Everything that touches a path goes through here, so a local folder, S3 and memory behave alike.

``root`` of a function is a folder that ``url`` lies below. With it no symbolic link below that folder is followed
(`pipeline.storage.local_files`); object stores have none. `pipeline.dataset.commit.folder` gives it for all files of
a dataset.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import StorageError
from pipeline.storage import local_files
from pipeline.storage._dataset_errors import _below, _dataset_errors
from pipeline.storage.retry import retried
from pipeline.storage.urls import is_local, split

MAX_READ_BYTES = 256 << 20
"""Files that are read whole are no larger: a snapshot of a dataset of billions of rows is below it."""


def exists(url: str, root: str | None = None) -> bool:
    with _dataset_errors("reach", url):
        if root is not None and is_local(root):
            try:
                return bool(local_files.check(*_below(url, root)))
            except FileNotFoundError:
                return False
        return retried(lambda: _exists(url))


def is_file(url: str, root: str | None = None) -> bool:
    """Returns whether ``url`` is a file. On an object store a prefix of other keys is not."""
    fs, path = split(url)

    with _dataset_errors("reach", url):
        try:
            if root is not None and is_local(root):
                return stat.S_ISREG(local_files.check(*_below(url, root)).st_mode)
            return bool(retried(lambda: _fresh_info(fs, path))["type"] == "file")
        except FileNotFoundError:
            return False


def _fresh_info(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Returns fsspec's info of a file or folder, without the listings that it caches."""
    fs.invalidate_cache(path)
    fs.invalidate_cache(fs._parent(path))
    found: dict[str, Any] = fs.info(path)
    return found


def _exists(url: str) -> bool:
    fs, path = split(url)
    fs.invalidate_cache(fs._parent(path))  # a listing of before knows nothing of what others wrote since
    if type(fs).exists is not fsspec.AbstractFileSystem.exists:
        return bool(fs.exists(path))
    try:  # fsspec's own would take any error for "not there"
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def read_bytes(url: str, limit: int = MAX_READ_BYTES, root: str | None = None) -> bytes:
    """All of a file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it is larger, or cannot be read.
    """
    fs, path = split(url)

    def read() -> bytes:
        info = _fresh_info(fs, path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
        size = int(info["size"])
        # object stores reject a range of an empty file; the file may have been replaced since
        data: bytes = fs.cat_file(path, start=0, end=limit + 1) if 0 < size <= limit else b""
        if max(size, len(data)) > limit:
            raise StorageError(f"{url!r} has more than {limit} bytes")
        return data

    with _dataset_errors("read", url, pass_missing=True):
        if isinstance(fs, LocalFileSystem):
            below = os.path.split(os.path.realpath(path)) if root is None else _below(url, root)
            return local_files.read(*below, limit)
        return retried(read)


def list_files(url: str, suffix: str = "", root: str | None = None) -> list[str]:
    """Names of the files directly inside the folder ``url``, sorted; empty if there is none. With ``root`` links and
    special files count as files."""
    try:
        found = _entries(url, root)
    except FileNotFoundError:
        return []
    return sorted(name for name, kind in found if kind == "file" and name.endswith(suffix))


def list_folders(url: str, root: str | None = None) -> list[str]:
    """Names of the folders directly inside the folder ``url``, sorted; empty if there is none. With ``root`` a link is
    none."""
    try:
        found = _entries(url, root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name, kind in found if kind == "directory")


def _entries(url: str, root: str | None) -> list[tuple[str, str]]:
    """(name, ``file``, ``directory`` or another kind) of each entry of a folder. Raises as `entries` does."""
    if root is not None and is_local(root):
        with _dataset_errors("list", url, pass_missing=True):
            found = local_files.entries(*_below(url, root))
        return [(name, "directory" if is_folder else "file") for name, is_folder in found]
    return [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry["type"]) for entry in entries(url)]


def entries(url: str) -> list[dict[str, Any]]:
    """What fsspec tells of each entry of a folder, as it is now.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: a file.
        StorageError: it cannot be listed.
    """
    fs, path = split(url)

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = fs.ls(path, detail=True, refresh=True)
        return found

    with _dataset_errors("list", url, pass_missing=True):
        return retried(listed)


def remove(url: str, root: str | None = None) -> None:
    """Delete a file; nothing happens if it is not there."""
    fs, path = split(url)
    with _dataset_errors("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove(*_below(url, root))
        else:
            retried(lambda: fs.rm_file(path))


def move(source: str, target: str, root: str | None = None) -> None:
    """Move a file within one file system; moved already is fine, so that it may be done twice, by anybody."""
    fs, path = split(source)
    to = split(target)[1]
    with _dataset_errors("move", source):
        try:
            if root is not None and isinstance(fs, LocalFileSystem):
                folder, below = _below(source, root)
                local_files.move(folder, below, _below(target, root)[1])
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
    """Delete a folder with all that is in it; nothing happens if it is not there."""
    fs, path = split(url)
    with _dataset_errors("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove_folder(*_below(url, root))
        else:
            retried(lambda: _remove_tree(fs, path))


def _remove_tree(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Deletes a folder with all files in it. ``path`` may contain glob characters, which `rm` would expand."""
    if not glob.has_magic(path):
        fs.rm(path, recursive=True)
        return
    fs.invalidate_cache(path)
    for file in fs.find(path):
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(file)
