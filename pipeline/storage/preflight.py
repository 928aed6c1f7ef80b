"""Checks before a run starts that a URL can be read or written."""

from __future__ import annotations

import contextlib
import os
import uuid

from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.storage.files import exists_now
from pipeline.storage.publication import publish, publish_new
from pipeline.storage.retry import retried
from pipeline.storage.urls import join, split


def check_writable(url: str, where: str) -> None:
    """Checks that files can be written into the folder ``url``, and that an existing file cannot be created again.

    Commits rely on exclusive creation. Files and folders that the check creates are removed.

    Args:
        where: dotted path of the URL in the config.

    Raises:
        ConfigError: a file cannot be written, or is created a second time.
    """
    probe = join(url, f".writable-{uuid.uuid4().hex}")
    try:
        fs, path = split(probe)
        new = [path] if isinstance(fs, LocalFileSystem) else []
        while new and not os.path.exists(os.path.dirname(new[-1])):
            new.append(os.path.dirname(new[-1]))
        try:
            publish(probe, b"")
            again = publish_new(probe, b"second")
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is raised
                fs.rm_file(path)
            raise
        retried(lambda: fs.rm_file(path))
        with contextlib.suppress(OSError):  # another run may write there already
            for folder in new[1:]:
                os.rmdir(folder)
    except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
        cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        raise ConfigError(
            where, f"cannot write to {url!r} ({describe(cause)})", "give a folder that can be written"
        ) from error
    if again:
        raise ConfigError(
            where,
            f"{url!r} lets a second writer create a file that is there",
            "a file system, or an object store that keeps to If-None-Match",
        )


def check_readable(url: str, where: str) -> None:
    """Checks that ``url`` exists.

    Args:
        where: dotted path of the URL in the config.

    Raises:
        ConfigError: it cannot be reached, or does not exist.
    """
    try:
        found = retried(lambda: exists_now(url))
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError(where, f"cannot reach {url!r} ({describe(error)})", "give a path that can be read") from error
    if not found:
        raise ConfigError(where, f"{url!r} does not exist", "give a folder, a file or a glob that is there")
