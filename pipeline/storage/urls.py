"""URLs and paths: the file system that a URL names, and the path on it."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

_BYTES = "bytes://"


def split(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of ``url`` and the path on it (absolute for local paths)."""
    if url.startswith("/") and not url.endswith("/") and "::" not in url:  # fsspec takes longer than opening the file
        return LocalFileSystem(), url
    if url.startswith(_BYTES):
        return LocalFileSystem(), os.fsdecode(unquote_to_bytes(url.removeprefix(_BYTES)))
    # fsspec would read "::" as a chain of file systems, so a name could reach a scheme that is not allowed
    head, colons, tail = url.partition("::")
    fs, path = fsspec.core.url_to_fs(head)
    if colons and head.endswith("/"):
        path = f"{path}/"
    return fs, path + colons + tail


def local_uri(path: str) -> str:
    """The uri of an absolute local path: the path itself, or ``bytes:///...`` where its name is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(path))
    return path


def is_local(url: str) -> bool:
    return isinstance(split(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """A local path made absolute, so that workers with another working directory find it; a URL as it is."""
    return url if "://" in url else os.path.abspath(url)


def in_one_process(url: str) -> bool:
    """True for a file system that no other process sees."""
    return isinstance(split(url)[0], MemoryFileSystem)


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])
