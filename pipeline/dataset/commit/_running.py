"""Announcements of runs: a run that writes has a file ``_running/<run_id>.json`` until it commits or is discarded."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.core import strict_json
from pipeline.dataset.commit.data_files import RUN_ID
from pipeline.dataset.commit.folder import DatasetFolder

_FOLDER = "_running"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Announcement:
    """A run that has begun and has not committed. Without the lease, it was interrupted."""

    run_id: str
    base: int
    """Number of the snapshot that the run started from; 0: none."""
    identity: str
    """Digest of the configuration. Only a run of the same identity may resume it."""


def announce(folder: DatasetFolder, announcement: Announcement) -> None:
    """Writes an announcement, atomically."""
    values = {"base": announcement.base, "identity": announcement.identity}
    folder.publish(_path(announcement.run_id), json.dumps(values).encode())


def withdraw(folder: DatasetFolder, run_id: str) -> None:
    """Deletes the announcement of a run. Does nothing if there is none."""
    folder.remove(_path(run_id))


def announced_ids(folder: DatasetFolder) -> list[str]:
    """Returns the ids of all announced runs, sorted by time. Files of other names are ignored."""
    names = (name.removesuffix(".json") for name in folder.list_files(_FOLDER, ".json"))
    return [name for name in names if RUN_ID.fullmatch(name)]


def announcements(folder: DatasetFolder) -> list[Announcement]:
    """Reads the announcements of all runs, sorted by time. Raises ``ConfigError`` for one that no run writes."""
    return [_read(folder, run_id) for run_id in announced_ids(folder)]


def _read(folder: DatasetFolder, run_id: str) -> Announcement:
    path = _path(run_id)
    values = strict_json.parse(folder.read(path, _MAX_BYTES), folder.url(path))
    return Announcement(run_id, values.member("base").integer(), values.member("identity").string())


def _path(run_id: str) -> str:
    return f"{_FOLDER}/{run_id}.json"
