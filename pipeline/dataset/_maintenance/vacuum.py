"""Deletes old snapshots, the files that only they name, expired pins, and the folders of old runs."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable

from pipeline.core.errors import SampleError
from pipeline.dataset._maintenance import run_folders
from pipeline.dataset._maintenance.steps import MaintenanceResult, require_base, resolve_folder
from pipeline.dataset.commit import catalog, pins, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, SUPERSEDED, current_path, new_run_id
from pipeline.dataset.commit.pins import Pin
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.commit.transaction import Transaction
from pipeline.storage.local_files import RefusedFile


def vacuum(path: str, older_than_s: float, version: str | None = None) -> list[MaintenanceResult]:
    """Deletes old snapshots, the files that only they name, and the folders of old runs.

    A snapshot is old if it was replaced more than ``older_than_s`` seconds ago, or if it has forgotten samples. The
    newest one is always kept, and a pinned one unless it has forgotten samples. The folder of a run is old if the run
    began more than ``older_than_s`` seconds ago; those of interrupted runs, of kept snapshots and of the last run are
    kept.

    Args:
        path: ``output.path`` of the config.
        older_than_s: age in seconds.
        version: None: all versions.

    Raises:
        ConfigError: no dataset at ``path``.
        TesseraError: another run is writing.
    """
    names = [version] if version is not None else catalog.versions(path)
    if not names:
        raise catalog.no_dataset(path)
    return [_vacuum_version(*resolve_folder(path, name), older_than_s) for name in names]


def _vacuum_version(root: str, name: str, older_than_s: float) -> MaintenanceResult:
    with Transaction(root, "vacuum", new_run_id()) as transaction:
        cutoff = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_s)
        found = _Snapshots(transaction, cutoff)
        files, leftovers, freed = found.unnamed_files(), transaction.leftovers(), 0
        if found.to_delete or files or leftovers:
            transaction.fence()
            found.delete()
        found.remove_pins()
        files = [one for one in files if not found.is_named(one)]  # of a snapshot that was pinned since
        # a writer that takes over from here on finds no snapshot that names the files; an earlier one has the lease
        transaction.lease.check()
        for file in files:
            with contextlib.suppress(SampleError, RefusedFile):  # it is missing, or not a regular file
                freed += transaction.folder.size(file)
            transaction.folder.remove(file)
        for leftover in leftovers:
            transaction.folder.remove_folder(leftover)
        return MaintenanceResult(
            name,
            transaction.number,
            removed=len(files),
            bytes=freed,
            runs=run_folders.remove_old(transaction, found.kept_runs, cutoff),
            pins_removed=tuple(found.pins_removed),
            pins_expired=tuple(found.pins_expired),
            pins_unreadable=tuple(found.pins_unreadable()),
        )


class _Snapshots:
    """The snapshots of a version: those to delete, and what the others name.

    Args:
        transaction: that of the vacuum.
        cutoff: snapshots that were replaced before this time are old.
    """

    def __init__(self, transaction: Transaction, cutoff: datetime.datetime) -> None:
        base = require_base(transaction)
        self.root, self.folder = transaction.root, transaction.folder
        self.kept_paths, self.kept_runs = {one.path for one in base.files()}, {base.run_id}
        self.pins_removed, self.pins_expired = list[str](), list[str]()
        self.to_delete: dict[int, bool] = {}
        """Number of a snapshot, newest first -> whether it has forgotten samples."""
        self.numbers = set(snapshots.numbers(self.root))
        self.pins = pins.states(self.folder, self.numbers)
        replaced_at = base.created
        for number in sorted(self.numbers - {base.number}, reverse=True):
            one, state = snapshots.read(self.root, number), self.pins.get(number)
            has_forgotten = bool(set(base.forgotten) - set(one.forgotten))
            is_begun = state is not None and state.deleting  # by a vacuum that was killed
            is_old = is_begun or datetime.datetime.fromisoformat(replaced_at) < cutoff
            if has_forgotten or (is_old and not pins.is_held(state)):
                self.to_delete[number] = has_forgotten
            else:
                self._keep(one)
            replaced_at = one.created

    def _keep(self, one: Snapshot) -> None:
        self.kept_paths |= {file.path for file in one.files()}
        self.kept_runs.add(one.run_id)

    def delete(self) -> None:
        """Deletes the snapshots, except those that were pinned since the pins were read."""
        for number, has_forgotten in self.to_delete.items():
            is_marked, removed = pins.mark_deleting(self.folder, number, although_pinned=has_forgotten)
            if not is_marked:
                with contextlib.suppress(FileNotFoundError):  # another vacuum deleted it since
                    self._keep(snapshots.read(self.root, number))
                continue
            snapshots.delete(self.root, number)
            self.numbers.remove(number)
            self._record(removed)

    def remove_pins(self) -> None:
        """Removes expired pins, and those of snapshots that are deleted."""
        for number, state in self.pins.items():
            if number in self.numbers:
                self._record(pins.remove_expired(self.folder, number) if state.pins else ())
            elif number not in self.to_delete:  # something else has deleted it
                self._record(state.pins)
        pins.remove_deleted(self.folder)

    def _record(self, removed: Iterable[Pin]) -> None:
        for one in removed:
            (self.pins_expired if one.is_expired() else self.pins_removed).append(one.name)

    def pins_unreadable(self) -> list[str]:
        """Returns the files of pins of kept snapshots that cannot be read."""
        return [one.unreadable for number, one in self.pins.items() if one.unreadable and number in self.numbers]

    def unnamed_files(self) -> list[str]:
        """Returns the superseded files that no kept snapshot names."""
        folders = [f"{SUPERSEDED}/{folder}" for folder in FOLDERS_ON_DISK]
        found = [f"{folder}/{file}" for folder in folders for file in self.folder.list_files(folder)]
        return [one for one in found if not self.is_named(one)]

    def is_named(self, path: str) -> bool:
        """Returns whether a kept snapshot names the superseded file ``path``."""
        return current_path(path.removeprefix(f"{SUPERSEDED}/")) in self.kept_paths
