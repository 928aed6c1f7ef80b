"""Deletes what finished runs left behind: data files that no snapshot names, and working folders."""

from __future__ import annotations

from pipeline.dataset.commit import _running, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, RUN_FILE, RUN_ID, current_path
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.storage.local_files import RefusedFile

_WORKING_FOLDERS = ("tasks", "pending", "plan")
"""Folders of a run that are not needed after its commit."""


def collect_garbage(folder: DatasetFolder, newest: Snapshot | None) -> None:
    """Deletes the data files of finished runs that no snapshot names, and that no later snapshot can name.

    This is safe even if this process was suspended while others committed. A run writes files only after it is
    announced, and stays announced until it or another run has committed. Hence the order: files are listed first, then
    announcements, then snapshots. A later snapshot takes its files from a snapshot that exists now, or from a run that
    is still announced.

    Args:
        folder: the version's folder.
        newest: its newest snapshot; None: there is none.
    """
    named = {one.path for one in (newest.files() if newest else ())}
    paths = [f"{name}/{file}" for name in FOLDERS_ON_DISK for file in folder.list_files(name)]
    announced = {*_running.announced_ids(folder)}
    candidates = []
    for path in paths:
        match = RUN_FILE.fullmatch(path.rpartition("/")[2])
        if match and match[1] not in announced and current_path(path) not in named:
            candidates.append(path)
    if not candidates:
        return
    for number in snapshots.numbers(folder.root):
        try:
            named |= {one.path for one in snapshots.read(folder.root, number).files()}
        except FileNotFoundError:  # vacuumed in the meantime, together with the files that only it named
            continue
    for path in candidates:
        if current_path(path) not in named:
            folder.remove(path)


def working_folders(folder: DatasetFolder, active: set[str]) -> list[str]:
    """Returns the paths of the working folders of all runs except ``active``, below the version's folder."""
    found = []
    for run_id in folder.list_folders("_runs"):
        if RUN_ID.fullmatch(run_id) and run_id not in active:
            names = folder.list_folders(f"_runs/{run_id}")
            found += [f"_runs/{run_id}/{name}" for name in names if name in _WORKING_FOLDERS]
    return found


def remove_working_folders(folder: DatasetFolder, run_id: str) -> None:
    """Deletes the working folders of a run."""
    for name in _WORKING_FOLDERS:
        try:
            folder.remove_folder(f"_runs/{run_id}/{name}")
        except RefusedFile:  # the run's folder is a link or a pipe: delete it, not its target
            folder.remove(f"_runs/{run_id}")
