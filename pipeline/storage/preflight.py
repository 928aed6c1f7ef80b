"""Checks before a run starts that a URL can be read or written."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.core.system.daemon_thread import in_thread
from pipeline.storage.files import exists_now, list_folders
from pipeline.storage.publication import publish, publish_new
from pipeline.storage.retry import denied, expired, is_transient, of_another_region, retried, without_credentials
from pipeline.storage.urls import is_local, join, split

_ANSWER_S = 15.0
"""Longest wait for the answer to one check."""
T = TypeVar("T")


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
        again = _answer(lambda: _create_twice(probe))
        with contextlib.suppress(OSError):  # another run may write there already
            for folder in new[1:]:
                os.rmdir(folder)
    except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
        raise _error(where, f"cannot write to {url!r}", error, "give a folder that can be written") from error
    if again:
        raise ConfigError(
            where,
            f"{url!r} lets a second writer create a file that is there",
            "a file system, or an object store that keeps to If-None-Match",
        )


def check_answers(url: str, where: str) -> None:
    """Checks that the storage of ``url`` answers, whatever the answer is: other calls hide that it does not.

    Args:
        where: dotted path of the URL in the config.

    Raises:
        ConfigError: it does not, or there are no credentials for it.
    """
    try:
        if not is_local(url):
            _answer(lambda: retried(lambda: exists_now(url)))  # one entry at most: a flat bucket may have millions
    except Exception as error:
        if advice(error) is not None and not denied(error):
            raise _error(where, f"cannot reach {url!r}", error, "") from error


def check_listable(url: str, where: str) -> None:
    """Checks that the folders in ``url`` can be listed; it need not exist.

    Args:
        where: dotted path of the URL in the config.

    Raises:
        ConfigError: they cannot.
    """
    try:
        _answer(lambda: list_folders(url))
    except Exception as error:  # any backend may raise anything here
        raise _error(where, f"cannot reach {url!r}", error, "give a folder") from error


def _create_twice(url: str) -> bool:
    """Writes a file, tries to create it, and removes it. Returns whether it was created while it was there."""
    fs, path = split(url)
    try:
        publish(url, b"")
        again = publish_new(url, b"second")
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is raised
            fs.rm_file(path)
        raise
    retried(lambda: fs.rm_file(path))
    return again


def check_readable(url: str, where: str) -> None:
    """Checks that ``url`` exists.

    Args:
        where: dotted path of the URL in the config.

    Raises:
        ConfigError: it cannot be reached, or does not exist.
    """
    try:
        found = _answer(lambda: retried(lambda: exists_now(url)))
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise _error(where, f"cannot reach {url!r}", error, "give a path that can be read") from error
    if not found:
        raise ConfigError(where, f"{url!r} does not exist", "give a folder, a file or a glob that is there")


def _answer(call: Callable[[], T]) -> T:
    """Returns the result of ``call``, which may go on in a thread after ``_ANSWER_S``: libraries wait for minutes.

    Raises:
        TimeoutError: there is none by then.
        Exception: what ``call`` raises.
    """
    asked = in_thread(call, "tessera-preflight")
    if wait([asked], timeout=_ANSWER_S).not_done:
        raise TimeoutError(f"no answer within {_ANSWER_S:g} s")
    return asked.result()


def _error(where: str, found: str, error: Exception, allowed: str) -> ConfigError:
    """Returns the error of a check, with its cause, and with what to do about that: if nothing better is known,
    ``allowed``."""
    cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
    return ConfigError(where, f"{found} ({describe(cause)})", advice(cause) or allowed)


def advice(error: BaseException) -> str | None:
    """Returns what to do about an error of a storage; None if that is to name another path."""
    if without_credentials(error):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
    if isinstance(error, FileNotFoundError) and "bucket" in str(error):
        return "create the bucket, or correct its name"
    if expired(error):
        return "credentials that have not expired: renew them, and see AWS_SESSION_TOKEN"
    if of_another_region(error):
        return "the region of the bucket: storage.s3.BUCKET.region, or AWS_DEFAULT_REGION"
    if denied(error):
        return "credentials that may do this: see AWS_ACCESS_KEY_ID, AWS_PROFILE or the role"
    if isinstance(error, TimeoutError) or is_transient(error):
        return "see that its server is up, and storage.s3.BUCKET.endpoint_url or AWS_ENDPOINT_URL if it is not on AWS"
    return None
