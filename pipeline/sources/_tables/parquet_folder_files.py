"""Lists the Parquet files in a folder, as Spark and other engines write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, describe
from pipeline.storage.retry import retried

_EXTENSIONS = (".parquet", ".pq")
"""Extensions of the files that are read, upper or lower case."""


def parquet_files(url: str, where: str) -> list[str]:
    """Returns the sorted paths of the Parquet files below a folder, relative to it. Names that begin with ``_`` or
    ``.`` are ignored.

    Args:
        where: dotted path of the manifest's path in the config, for errors.

    Raises:
        ConfigError: no file; too many files; a link to a folder outside; a folder that cannot be listed.
    """
    fs, path = storage.split(url)
    found: list[str] = []
    others = 0
    try:
        for name in _listed(fs, path.rstrip("/") or "/", where):
            if name.lower().endswith(_EXTENSIONS):
                found.append(name)
            else:
                others += 1
            if len(found) > parquet.MAX_LIST:
                raise ConfigError(where, f"{url!r} has too many files", f"at most {parquet.MAX_LIST}")
    except ConfigError:
        raise
    except Exception as error:  # any backend may raise anything here
        raise ConfigError(where, f"cannot list {url!r} ({describe(error)})", "make it readable") from error
    if not found:
        more = f", but {others} of other names" if others else ""
        raise ConfigError(
            where, f"the folder {url!r} holds no Parquet file{more}", "a table, or a folder with files named *.parquet"
        )
    return sorted(found)


def _listed(fs: Any, root: str, where: str) -> Iterator[str]:
    return _local(root, where) if isinstance(fs, LocalFileSystem) else _remote(fs, root, where)


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _local(root: str, where: str) -> Iterator[str]:
    """Yields the paths of all files. Links to files are included: a file's real path is checked when it is opened."""
    real_root, todo = os.path.realpath(root), [""]
    status = os.stat(root)
    entered = {(status.st_dev, status.st_ino)}
    while todo:
        prefix = todo.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                path = prefix + entry.name
                if _is_hidden(entry.name):
                    continue
                if not entry.is_dir():
                    yield path
                    continue
                if entry.is_symlink() and not f"{os.path.realpath(entry.path)}/".startswith(f"{real_root}/"):
                    raise ConfigError(where, f"{entry.path!r} is a link that leads out of the manifest", "a folder")
                status = entry.stat()
                if (status.st_dev, status.st_ino) not in entered:  # links may form a cycle
                    entered.add((status.st_dev, status.st_ino))
                    todo.append(f"{path}/")


def _remote(fs: Any, root: str, where: str) -> Iterator[str]:
    """Yields the paths of all files on a remote file system. fsspec's own walk ignores folders that it cannot list."""
    todo = [root]
    while todo:
        folder = todo.pop()
        entries = retried(partial(fs.ls, folder, detail=True, refresh=True))
        fs.invalidate_cache(folder)
        for entry in entries:
            name = str(entry["name"])
            path, is_folder = name.removeprefix(root).removeprefix("/"), entry["type"] == "directory"
            if is_folder and name.startswith(f"{folder}/") and name.rstrip("/") == folder:
                raise ConfigError(where, f"a key below {folder!r} has an empty name in its path", "rename it")
            if not path.rstrip("/") or _is_hidden(path.rstrip("/").rpartition("/")[2]):
                continue
            if is_folder:
                todo.append(name.rstrip("/"))
            elif not path.endswith("/"):
                yield path
