"""Checkpoints and heads that a URL names: fetched once per machine into the user's cache folder.

A copy is named after the URLs, sizes and versions (ETags) of its files. So a checkpoint that changes on the storage
becomes another copy, and one that is there is used as it is. A copy gets its name when it is complete; other processes
wait for the one that fetches it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256

from pipeline import storage
from pipeline.core.errors import ConfigError, StorageError, TesseraError, describe
from pipeline.core.system import private_folder
from pipeline.storage.retry import retried

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
"""The files of a checkpoint."""
_SCHEMES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
"""Schemes that a checkpoint may have: object stores. Others of fsspec run commands, or list no sizes."""
_MAX_FILES = 1000
_TRIES = 3
"""How often a checkpoint is fetched that changes meanwhile."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a storage; ``version`` changes with its content."""

    url: str
    size: int
    version: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def has_weights(self) -> bool:
        return self.name.endswith(".safetensors")


def is_remote(name: str) -> bool:
    """Returns whether a checkpoint, or the weights of a head, are named by a URL."""
    return "://" in name


def copy_here(name: str) -> str | None:
    """Returns the folder of that name, see `name_of_copy`, if this machine has it."""
    cache = private_folder.of_user_cache("checkpoints")
    path = os.path.join(cache or "", name)
    return path if cache is not None and os.path.isdir(path) else None


def local_folder(url: str, where: str, with_weights: bool = True) -> str:
    """Returns the folder with the files of the checkpoint at ``url``; fetches them if they are not there.

    Args:
        where: dotted path of the checkpoint in the config, for errors.
        with_weights: False: the weights may be missing.

    Raises:
        ConfigError: there is no checkpoint, it cannot be reached, or there is no room for it.
        TesseraError: it changes while it is fetched.
    """
    return _copy(lambda: [one for one in files_of(url, where) if with_weights or not one.has_weights], where)


def path_of_file(name: str, where: str) -> str:
    """Returns the path of a file: a path itself, or that of the copy of what a URL names. See `local_folder`."""
    if not is_remote(name):
        return name
    return os.path.join(_copy(lambda: [_file_at(name, where)], where), name.rpartition("/")[2])


def files_of(url: str, where: str) -> list[RemoteFile]:
    """Returns the files of the checkpoint at ``url``, without those that no library reads. Raises ``ConfigError``."""
    with _storage_errors(url, where, "give the URL of a folder written by save_pretrained"):
        _check_scheme(url)
        storage.check_answers(url, where)
        found = []
        for entry in storage.entries(url):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if entry["type"] == "file" and any(fnmatch(name, pattern) for pattern in PATTERNS):
                version = storage.remote_version(entry)
                found.append(RemoteFile(storage.join(url, name), int(entry["size"] or 0), version))
        if not found:
            raise FileNotFoundError(url)
    if len(found) > _MAX_FILES:
        raise ConfigError(where, f"{url!r} holds {len(found)} files", f"a checkpoint has at most {_MAX_FILES}")
    return sorted(found, key=lambda one: one.url)


def _file_at(url: str, where: str) -> RemoteFile:
    with _storage_errors(url, where, "give the URL of a safetensors file"):
        _check_scheme(url)
        storage.check_answers(url, where)
        info = storage.remote_info(url)
        return RemoteFile(url, int(info["size"] or 0), storage.remote_version(info))


def _copy(find: Callable[[], list[RemoteFile]], where: str) -> str:
    """Returns the folder with copies of the files that ``find`` lists."""
    cache = private_folder.of_user_cache("checkpoints")
    if cache is None:
        found = "this user's cache folder cannot be written, or other users can write to it"
        raise ConfigError(where, found, "set XDG_CACHE_HOME to a folder of this user's own")
    for _ in range(_TRIES):
        files = find()
        path = os.path.join(cache, name_of_copy(files))
        with _locked(f"{path}.lock"):
            if os.path.isdir(path) or _fetch(files, path, where, find):
                return path
    raise TesseraError(f"{where}: {files[0].url!r} changes while it is fetched: run again when it is complete")


def _fetch(files: list[RemoteFile], path: str, where: str, find: Callable[[], list[RemoteFile]]) -> bool:
    """Makes the folder ``path`` with copies of the files, and returns True. It appears when it is complete. The caller
    holds the lock.

    Returns False, and leaves no folder, if ``find`` lists other files afterwards: what was read may be of both.
    """
    parent, size = os.path.dirname(path), sum(one.size for one in files)
    if size > (free := shutil.disk_usage(parent).free):
        found = f"{files[0].url!r} and {len(files) - 1} more files have {size} bytes, {parent} has {free} left"
        raise ConfigError(where, found, "free some, or set XDG_CACHE_HOME to a larger disk")
    made = os.path.join(parent, f".fetching-{os.path.basename(path)}")
    shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    os.mkdir(made, mode=0o700)
    try:
        for one in files:
            with _storage_errors(one.url, where, "see that it can be read"):
                _fetch_file(one, os.path.join(made, one.name))
        if find() != files:
            return False
        os.rename(made, path)
        return True
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fetch_file(one: RemoteFile, target: str) -> None:
    fs, path = storage.split(one.url)

    def get() -> None:
        fs.get_file(path, target)
        if (got := os.path.getsize(target)) != one.size:
            raise storage.Truncated(got, one.size)

    retried(get)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds an exclusive lock on a file. It ends with this process at the latest."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def name_of_copy(files: list[RemoteFile]) -> str:
    """Returns the name of the folder with copies of the files."""
    return sha256("\n".join(f"{one.url} {one.size} {one.version}" for one in files).encode()).hexdigest()


def _check_scheme(url: str) -> None:
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise ValueError(f"the scheme {scheme!r} is none of {', '.join(_SCHEMES)}")


@contextmanager
def _storage_errors(url: str, where: str, advice: str) -> Iterator[None]:
    """Raises errors of a storage as ``ConfigError``."""
    try:
        yield
    except ConfigError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(where, f"there is nothing at {url!r}", advice) from error
    except Exception as error:  # any backend may raise anything here: permissions, DNS, credentials
        cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        advice = storage.advice(cause) or advice
        raise ConfigError(where, f"cannot read {url!r} ({describe(cause)})", advice) from error
