"""Removing a version that no run has committed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, RUN_ID
from pipeline.dataset.commit.folder import DatasetFolder, check_version
from pipeline.dataset.commit.transaction import RUN_FILE, Transaction
from pipeline.dataset.maintenance import MaintenanceResult, _run_id


def discard(path: str, version: str) -> MaintenanceResult:
    """Remove a version that no run has committed: what its first run left that was killed and will not be continued.

    Raises:
        ConfigError: no such version, one that was committed, or files in it that no run writes there.
        TesseraError: a run is at it.
    """
    check_version(path, version)
    root = storage.join(path, version)
    if version not in catalog.version_folders(path):
        raise ConfigError("--version", f"there is no version {version!r} in {path!r}", "the name of a folder there")
    folder = DatasetFolder(root)
    if snapshots.numbers(root):
        raise _is_committed(version)
    _check_never_committed(root)
    with Transaction(root, "vacuum", _run_id()) as transaction:
        if transaction.base is not None:
            raise _is_committed(version)
        transaction.discard_interrupted()
        runs = len(transaction.discarded)
        transaction.close()
        transaction.lease.check()
        for name in folder.list_folders(""):
            if name != "_leases":
                folder.remove_folder(name)
        lease = transaction.lease
    for number in range(max(1, lease.number - 1), lease.number + 1):  # not that of a run that has begun since
        folder.remove(f"_leases/{number:08d}.json")
    if storage.is_local(path):
        place = storage.split(root)[1]
        with contextlib.suppress(OSError):  # such a run is there
            os.rmdir(os.path.join(place, "_leases"))
            os.rmdir(place)
    return MaintenanceResult(version, 0, removed=runs)


def _is_committed(version: str) -> ConfigError:
    return ConfigError(
        "--version", f"{version!r} has a snapshot", "only a version that no run has committed is discarded"
    )


_RUN_FILES = r"(config|report|judged)\.json"
_TEMPORARY = r"(\.[0-9a-f]{32}\.tmp)?"
_WRITTEN = re.compile(
    rf"""({"|".join(FOLDERS_ON_DISK)})/{RUN_FILE.pattern}
    |_running/{RUN_ID.pattern}\.json{_TEMPORARY}|_leases/\d+\.json{_TEMPORARY}
    |_runs/{RUN_ID.pattern}/({_RUN_FILES}{_TEMPORARY}|plan/\d+\.parquet{_TEMPORARY}|tasks/{RUN_FILE.pattern}
        |pending/({"|".join(FOLDERS_ON_DISK)})/{RUN_FILE.pattern})""",
    re.VERBOSE,
)
"""The files of a version whose first run has not committed."""
_DEEPEST = 5


def _check_never_committed(root: str) -> None:
    """Raises ``ConfigError`` unless a version's folder holds what a run left that has begun and not committed, and
    nothing else."""
    folder = DatasetFolder(root)
    names = {*folder.list_folders(""), *folder.list_files("")}
    others = (path for path in _files(folder) if not _WRITTEN.fullmatch(path))
    if (other := next(others, None)) is not None:
        raise ConfigError("--version", f"{root!r} holds {other!r}, which no such run writes", "move it elsewhere")
    if not names & {"_leases", "_runs", "_running"}:
        raise ConfigError("--version", f"no run has begun in {root!r}", "the folder of a version")
    announced = {name.removesuffix(".json") for name in folder.list_files("_running")}
    for run in folder.list_folders("_runs"):
        path = f"_runs/{run}/report.json"
        if run in announced or not folder.is_file(path):
            continue
        report = strict_json.parse(folder.read(path), folder.url(path))
        if report.member("status", "complete").value == "complete":
            raise ConfigError(
                "--version", f"run {run} of {root!r} is complete, and no snapshot names its rows", "put _snapshots back"
            )


def _files(folder: DatasetFolder, path: str = "", depth: int = 1) -> Iterator[str]:
    """The files below ``path``, and folders that are deeper than a run makes them."""
    below = f"{path}/" if path else ""
    yield from (f"{below}{name}" for name in folder.list_files(path))
    for name in folder.list_folders(path):
        if depth == _DEEPEST:
            yield f"{below}{name}"
        else:
            yield from _files(folder, f"{below}{name}", depth + 1)
