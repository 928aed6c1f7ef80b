"""Removes a version that no run has committed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.dataset._maintenance.steps import MaintenanceResult
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, RUN_FILE, RUN_ID, new_run_id
from pipeline.dataset.commit.folder import DatasetFolder, check_version
from pipeline.dataset.commit.transaction import Transaction

_RUN_FILES = r"(config|report|judged)\.json"
_TEMPORARY = r"(\.[0-9a-f]{32}\.tmp)?"
_UNCOMMITTED_FILE = re.compile(
    rf"""({"|".join(FOLDERS_ON_DISK)})/{RUN_FILE.pattern}
    |_running/{RUN_ID.pattern}\.json{_TEMPORARY}|_leases/\d+\.json{_TEMPORARY}|_snapshots/\d+\.json\.[0-9a-f]{{32}}\.tmp
    |_runs/{RUN_ID.pattern}/({_RUN_FILES}{_TEMPORARY}|plan/\d+\.parquet{_TEMPORARY}|tasks/{RUN_FILE.pattern}
        |pending/({"|".join(FOLDERS_ON_DISK)})/{RUN_FILE.pattern})""",
    re.VERBOSE,
)
"""All files that a first run writes before it commits."""
_MAX_DEPTH = 5
"""Depth of the deepest file that a run writes."""


def discard(path: str, version: str) -> MaintenanceResult:
    """Removes a version that no run has committed: the files of first runs that were killed and are not continued.

    Raises:
        ConfigError: no such version, a version with a snapshot, or files in it that no such run writes.
        TesseraError: a run is writing.
    """
    check_version(path, version)
    root = storage.join(path, version)
    if version not in catalog.version_folders(path):
        raise ConfigError("--version", f"there is no version {version!r} in {path!r}", "the name of a folder there")
    folder = DatasetFolder(root)
    if snapshots.numbers(root):
        raise _committed_error(version)
    _check_never_committed(root)
    with Transaction(root, "vacuum", new_run_id()) as transaction:
        if transaction.base is not None:
            raise _committed_error(version)
        transaction.discard_interrupted()
        runs = len(transaction.discarded)
        transaction.close()
        transaction.lease.check()
        for name in folder.list_folders(""):
            if name != "_leases":
                folder.remove_folder(name)
        lease = transaction.lease
    for number in range(max(1, lease.number - 1), lease.number + 1):  # not the lease of a run that has begun since
        folder.remove(f"_leases/{number:08d}.json")
    if storage.is_local(path):
        place = storage.split(root)[1]
        with contextlib.suppress(OSError):  # not empty, because such a run has begun
            os.rmdir(os.path.join(place, "_leases"))
            os.rmdir(place)
    return MaintenanceResult(version, 0, removed=runs)


def _committed_error(version: str) -> ConfigError:
    return ConfigError(
        "--version", f"{version!r} has a snapshot", "only a version that no run has committed is discarded"
    )


def _check_never_committed(root: str) -> None:
    """Raises ``ConfigError`` unless a version's folder contains only files of runs that have begun and not
    committed."""
    folder = DatasetFolder(root)
    names = {*folder.list_folders(""), *folder.list_files("")}
    foreign = (path for path in _files(folder) if not _UNCOMMITTED_FILE.fullmatch(path))
    if (path := next(foreign, None)) is not None:
        raise ConfigError("--version", f"{root!r} holds {path!r}, which no such run writes", "move it elsewhere")
    if not names & {"_leases", "_runs", "_running"}:
        raise ConfigError("--version", f"no run has begun in {root!r}", "the folder of a version")
    announced = {name.removesuffix(".json") for name in folder.list_files("_running")}
    written = {match[1] for name in folder.list_files("data") if (match := RUN_FILE.fullmatch(name))}
    for run in sorted(written - announced):
        if not _has_broken_off(folder, run):
            raise ConfigError(
                "--version", f"run {run} of {root!r} is complete, and no snapshot names its rows", "put _snapshots back"
            )


def _has_broken_off(folder: DatasetFolder, run_id: str) -> bool:
    """Returns whether a run's report says that it broke off before its commit."""
    path = f"_runs/{run_id}/report.json"
    if not folder.is_file(path):
        return False
    report = strict_json.parse(folder.read(path), folder.url(path))
    return bool(report.member("status", "complete").value == "broken off")


def _files(folder: DatasetFolder, path: str = "", depth: int = 1) -> Iterator[str]:
    """Yields the paths of all files below ``path``, and of folders that are deeper than any that a run creates."""
    prefix = f"{path}/" if path else ""
    yield from (f"{prefix}{name}" for name in folder.list_files(path))
    for name in folder.list_folders(path):
        if depth == _MAX_DEPTH:
            yield f"{prefix}{name}"
        else:
            yield from _files(folder, f"{prefix}{name}", depth + 1)
