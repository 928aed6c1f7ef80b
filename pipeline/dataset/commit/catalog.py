"""The versions of a dataset: which there are, and which one a reader gets."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import newest, numbers

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CURRENT = "_current.json"
_SMALL_BYTES = 1 << 20
"""More than any file that names a version, a lease or a run."""


def versions(output: str) -> list[str]:
    """Versions of the dataset at ``output`` that have a snapshot, by name."""
    return [name for name in version_folders(output) if numbers(storage.join(output, name))]


def is_version(output: str, name: str) -> bool:
    """Returns whether ``name`` is one of `versions`. Reads no other version, which may be broken."""
    return bool(_VERSION.fullmatch(name) and numbers(storage.join(output, name)))


def version_folders(output: str) -> list[str]:
    """Returns the names of all version folders, sorted; a version whose first run has not committed is included."""
    return [name for name in DatasetFolder(output).list_folders("") if _VERSION.fullmatch(name)]


def no_dataset(output: str, or_version: bool = False) -> ConfigError:
    """Returns the error for an ``output`` without a version.

    Args:
        or_version: the caller also accepts the folder of one version.
    """
    if storage.is_local(output):
        with suppress(OSError, TesseraError), os.scandir(storage.split(output)[1]) as found:
            for one in found:
                if one.is_symlink() and _VERSION.fullmatch(one.name) and numbers(one.path):
                    what = f"{output!r} holds no dataset but {one.name!r}, a symbolic link, which is not followed"
                    more = ", or give the link itself" if or_version else ""
                    return ConfigError("path", what, f"move what it points to here{more}")
    more = ", or its version" if or_version else ""
    return ConfigError("path", f"{output!r} holds no dataset", f"give output.path of a finished run{more}")


def forgotten(output: str) -> tuple[str, ...]:
    """sha256 of the ids that any version bars."""
    found = (newest(storage.join(output, name)) for name in versions(output))
    return tuple(dict.fromkeys(one for snapshot in found if snapshot for one in snapshot.forgotten))


def current(output: str) -> str | None:
    """The version that a reader gets who names none; None if there is no dataset."""
    known = versions(output)
    if not known:
        return None
    folder = DatasetFolder(output)
    try:
        named = strict_json.parse(folder.read(_CURRENT, _SMALL_BYTES), folder.url(_CURRENT))
    except FileNotFoundError:
        named = Value({}, _CURRENT)
    for one in (named.member("version", None), named.member("until_then", None)):
        if one.value is not None and one.string() in known:
            return str(one.value)

    def created(name: str) -> tuple[str, str]:
        found = newest(storage.join(output, name))
        return (found.created if found else "", name)

    return max(known, key=created, default=None)


def make_current(output: str, version: str) -> None:
    """Name ``version`` as the one that readers get, from its first commit on: until then they get the one before."""
    named = {"version": version, "until_then": current(output)}
    DatasetFolder(output).publish(_CURRENT, json.dumps(named).encode())


def next_version(output: str) -> str:
    """A name for a further version: ``v<n>``, one more than the highest that is committed."""
    taken = [int(match[1]) for name in versions(output) if (match := re.fullmatch(r"v(\d{1,9})", name))]
    return f"v{max(taken, default=0) + 1}"
