"""The versions of a dataset: finding them, and naming the current one, which readers open by default."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder, check_version
from pipeline.dataset.commit.snapshots import newest, numbers

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CURRENT = "_current.json"
"""Names the current version, and the one that is current until that has a snapshot."""
_MAX_CURRENT_BYTES = 1 << 20
"""More than `_CURRENT` ever has."""


def versions(output: str) -> list[str]:
    """Returns the names of the versions at ``output`` that have a snapshot, sorted."""
    return [name for name in version_folders(output) if numbers(storage.join(output, name))]


def is_version(output: str, name: str) -> bool:
    """Returns whether ``name`` is one of `versions`. Other versions, which may be broken, are not read."""
    return bool(_VERSION.fullmatch(name) and numbers(storage.join(output, name)))


def version_folders(output: str) -> list[str]:
    """Returns the names of all version folders, sorted; a version whose first run has not committed is included."""
    return [name for name in DatasetFolder(output).list_folders("") if _VERSION.fullmatch(name)]


def resolve_version(output: str, version: str | None, setting: str = "version", or_version: bool = False) -> str:
    """Returns ``version``, or the current version for None.

    Args:
        output: the dataset's folder.
        version: a name, or None.
        setting: the name of the option or argument in errors.
        or_version: see `no_dataset`.

    Raises:
        ConfigError: there is no dataset or no such version.
        StorageError: the version is a symbolic link.
    """
    if version is not None:
        check_version(output, version)
    name = version or current(output)
    if name is None:
        raise no_dataset(output, or_version)
    if version is not None and not is_version(output, version):
        known = ", ".join(versions(output))
        raise ConfigError(setting, f"there is no version {version!r} in {output!r}", f"one of: {known}")
    return name


def no_dataset(output: str, or_version: bool = False) -> ConfigError:
    """Returns the error for an ``output`` without a version.

    Args:
        or_version: the caller also accepts the folder of one version as ``output``.
    """
    if storage.is_local(output):
        with suppress(OSError, TesseraError), os.scandir(storage.split(output)[1]) as entries:
            for entry in entries:
                if entry.is_symlink() and _VERSION.fullmatch(entry.name) and numbers(entry.path):
                    what = f"{output!r} holds no dataset but {entry.name!r}, a symbolic link, which is not followed"
                    alternative = ", or give the link itself" if or_version else ""
                    return ConfigError("path", what, f"move what it points to here{alternative}")
    alternative = ", or its version" if or_version else ""
    return ConfigError("path", f"{output!r} holds no dataset", f"give output.path of a finished run{alternative}")


def forgotten(output: str) -> tuple[str, ...]:
    """Returns the sha256 of each id that is forgotten in any version."""
    found = (newest(storage.join(output, name)) for name in versions(output))
    return tuple(dict.fromkeys(one for snapshot in found if snapshot for one in snapshot.forgotten))


def current(output: str) -> str | None:
    """Returns the current version, which readers open by default; None if there is no dataset.

    Without a valid `_CURRENT` it is the version with the newest snapshot.
    """
    known = versions(output)
    if not known:
        return None
    folder = DatasetFolder(output)
    try:
        named = strict_json.parse(folder.read(_CURRENT, _MAX_CURRENT_BYTES), folder.url(_CURRENT))
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
    """Makes ``version`` the current one. Until its first commit, the version that is current now remains so."""
    named = {"version": version, "until_then": current(output)}
    DatasetFolder(output).publish(_CURRENT, json.dumps(named).encode())


def next_version(output: str) -> str:
    """Returns a name for a new version: ``v<n>``, one more than the highest committed number."""
    taken = [int(match[1]) for name in versions(output) if (match := re.fullmatch(r"v(\d{1,9})", name))]
    return f"v{max(taken, default=0) + 1}"
