"""Splits URLs into the file system and the path on it, and joins paths."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.storage import settings

_BYTES = "bytes://"
"""Scheme of a local path that is not UTF-8: its bytes, percent-escaped."""


def split(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the file system of ``url`` and the path on it (absolute for local paths)."""
    if url.startswith("/") and not url.endswith("/") and "::" not in url:  # parsing takes longer than opening
        return LocalFileSystem(), url
    if url.startswith(_BYTES):
        return LocalFileSystem(), os.fsdecode(unquote_to_bytes(url.removeprefix(_BYTES)))
    # fsspec treats "::" as a chain of file systems, so that a name could use a scheme that is not allowed
    head, colons, tail = url.partition("::")
    fs, path = fsspec.core.url_to_fs(head, **settings.options(head))
    if colons and head.endswith("/"):
        path = f"{path}/"
    return fs, path + colons + tail


def local_uri(path: str) -> str:
    """Returns the URI of an absolute local path: the path itself, or ``bytes:///...`` if it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(path))
    return path


def is_local(url: str) -> bool:
    """Returns whether ``url`` is a local path."""
    return isinstance(split(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """Returns a local path as an absolute path, for workers with another working directory; a URL unchanged."""
    return url if "://" in url else os.path.abspath(url)


def in_one_process(url: str) -> bool:
    """Returns whether the file system of ``url`` exists in this process only (memory)."""
    return isinstance(split(url)[0], MemoryFileSystem)


def join(root: str, *parts: str) -> str:
    """Returns ``root`` and ``parts`` with one slash between them."""
    return "/".join([root.rstrip("/"), *parts])
