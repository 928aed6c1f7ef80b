"""Whether a place can be read and written, asked before a run starts."""

from __future__ import annotations

import contextlib
import os
import uuid

from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.storage.files import _exists
from pipeline.storage.publication import publish, publish_new
from pipeline.storage.retry import retried
from pipeline.storage.urls import join, split


def check_writable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless files can be written into the folder ``url``, and one that is there
    cannot be created again, on which every commit stands. Leaves nothing there."""
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
            with contextlib.suppress(Exception):  # the first is told
                fs.rm_file(path)
            raise
        retried(lambda: fs.rm_file(path))
        with contextlib.suppress(OSError):  # another run begins there
            for folder in new[1:]:
                os.rmdir(folder)
    except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
        told = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        raise ConfigError(
            where, f"cannot write to {url!r} ({describe(told)})", "give a folder that can be written"
        ) from error
    if again:
        raise ConfigError(
            where,
            f"{url!r} lets a second writer create a file that is there",
            "a file system, or an object store that keeps to If-None-Match",
        )


def check_readable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless ``url`` can be reached and is there."""
    try:
        found = retried(lambda: _exists(url))
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError(where, f"cannot reach {url!r} ({describe(error)})", "give a path that can be read") from error
    if not found:
        raise ConfigError(where, f"{url!r} does not exist", "give a folder, a file or a glob that is there")
