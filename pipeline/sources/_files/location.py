"""Where the files source walks: the root folder, and what the configured path says about the files below it."""

from __future__ import annotations

import os
from typing import NamedTuple

from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.sources._files.patterns import MAGIC, Patterns


class Location(NamedTuple):
    """A configured path, split into its root folder and a condition on the files below it."""

    root: str
    """The folder to walk: an absolute path, or a URL."""
    glob: Patterns | None
    """What paths relative to the root must match; None: anything."""
    only: str | None
    """Name of the single file, if the configured path is a file."""


def locate(url: str) -> Location:
    """Returns the location that ``url`` describes.

    Raises:
        Exception: any error of the file system.
        ValueError: a glob that cannot be read.
    """
    fs, path = storage.split(url)
    local = isinstance(fs, LocalFileSystem)
    wildcard = MAGIC.search(url)
    if wildcard is None or fs.exists(path):  # a folder may have a name that looks like a glob
        root = os.path.abspath(path) if local else url.rstrip("/")
        if not fs.isfile(path):
            return Location(root, None, None)
        folder, _, name = root.rpartition("/")
        return Location(folder or "/", None, name)
    cut = _folder_end(url, wildcard.start())
    folder = url[:cut] or "."
    root = os.path.abspath(storage.split(folder)[1]) if local else folder.rstrip("/")
    return Location(root, Patterns([url[cut:]]), None)


def before_glob(url: str) -> str:
    """Returns the folder of ``url`` above its first wildcard; ``url`` itself without one."""
    wildcard = MAGIC.search(url)
    return url if wildcard is None else url[: _folder_end(url, wildcard.start())] or "."


def _folder_end(url: str, wildcard: int) -> int:
    """Returns where the folder of ``url`` above its first wildcard ends."""
    body = url.find("://") + 3 if "://" in url else 0
    return max(url.rfind("/", body, wildcard) + 1, body)


def cannot_list(where: str, folder: str, error: Exception) -> ConfigError:
    """Returns the error for a folder or file whose entry cannot be read.

    Args:
        where: dotted path of the config key that names the corpus.
    """
    return ConfigError(where, f"cannot list {folder!r} ({describe(error)})", "make it readable")
