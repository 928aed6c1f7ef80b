"""Maintenance of a dataset: compact, rollback, forget, vacuum, use.

Each command except `use` takes the lease of a version, and commits a snapshot of its own before it deletes anything.
Ray is not used.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import replace

from pipeline.core import durations
from pipeline.core.errors import ConfigError, SampleError
from pipeline.dataset._maintenance.forget import forget
from pipeline.dataset._maintenance.rewrite import commit_rewrite, files_to_compact, is_small, rewrite
from pipeline.dataset._maintenance.steps import MaintenanceResult, require_base, resolve_folder
from pipeline.dataset.commit import catalog, data_files, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, SUPERSEDED, File, FileSet, current_path, new_run_id
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.output import OutputConfig
from pipeline.storage.local_files import RefusedFile

__all__ = ["MaintenanceResult", "compact", "forget", "is_small", "rollback", "seconds", "use", "vacuum"]

_MIN_SHARD_BYTES = 1024


def compact(path: str, version: str | None = None, shard_bytes: int = 256 << 20) -> MaintenanceResult:
    """Merges small shards and removes deleted rows, so that a plain Parquet reader finds every row exactly once.

    Args:
        path: ``output.path`` of the config.
        version: None: the current one.
        shard_bytes: size of the new shards.

    Raises:
        ConfigError: no dataset at ``path``.
        TesseraError: another run is writing, or an interrupted run must be continued first.
    """
    if shard_bytes < _MIN_SHARD_BYTES:
        raise ConfigError("--shard-bytes", f"found {shard_bytes}", f"at least {_MIN_SHARD_BYTES}")
    root, name = resolve_folder(path, version)
    with Transaction(root, "compact", new_run_id()) as transaction:
        transaction.refuse_interrupted()
        base = require_base(transaction)
        output = OutputConfig(path=path, shard_bytes=shard_bytes)
        done = rewrite(transaction, base.file_set, lambda files: files_to_compact(files, shard_bytes), output)
        if not done.replaced:
            return MaintenanceResult(name, base.number)
        return commit_rewrite(transaction, name, done, removed=sum(len(one.deleted) for one in done.replaced))


def rollback(path: str, to: int, version: str | None = None) -> MaintenanceResult:
    """Commits a snapshot with the content of snapshot ``to``. The next run updates the dataset from there.

    Raises:
        ConfigError: no such snapshot, its files are deleted, or it has samples that were forgotten later.
        TesseraError: another run is writing.
    """
    root, name = resolve_folder(path, version)
    with Transaction(root, "rollback", new_run_id()) as transaction:
        base = require_base(transaction)
        known = snapshots.numbers(root)
        if to not in known:
            numbers = ", ".join(str(one) for one in sorted(known))
            raise ConfigError("--to", f"there is no snapshot {to} in {root!r}", f"one of: {numbers}")
        target = snapshots.read(root, to)
        if set(base.forgotten) - set(target.forgotten):
            raise ConfigError("--to", f"snapshot {to} holds samples that were forgotten since", "a later one")
        transaction.discard_interrupted()
        files = FileSet.of_kinds((kind, _as_pending(root, one)) for kind, one in target.file_set.with_kinds())
        num_removed = sum(one.live for one in base.shards) - sum(one.live for one in target.shards)
        next_snapshot = snapshots.next_snapshot(
            base,
            transaction.run_id,
            "rollback",
            target.identities,
            files,
            allowed_roots=target.allowed_roots,
        )
        transaction.commit(next_snapshot)
        return MaintenanceResult(name, next_snapshot.number, removed=max(0, num_removed))


def vacuum(path: str, older_than_s: float, version: str | None = None) -> list[MaintenanceResult]:
    """Deletes old snapshots, and the files that only they name. The newest snapshot is always kept.

    A snapshot is old if it was replaced more than ``older_than_s`` seconds ago, or if it has forgotten samples.

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


def use(path: str, version: str) -> None:
    """Makes ``version`` the current one. Raises ``ConfigError`` if there is no version of that name."""
    catalog.make_current(path, resolve_folder(path, version)[1])


def seconds(age: str) -> float:
    """Parses an age: ``7d``, ``12h``, ``90m``, ``30s``, ``2w``. Raises ``ConfigError``."""
    return durations.seconds(age, "--older-than")


# -- rollback -------------------------------------------------------------------------------------


def _as_pending(root: str, file: File) -> File:
    """Returns a file of an old snapshot as one that is moved back by the commit. Raises ``ConfigError`` if it is
    deleted."""
    try:
        place = data_files.find(root, file)
    except FileNotFoundError as error:
        raise ConfigError("--to", f"{file.path} is gone: it was vacuumed", "a later snapshot") from error
    return replace(file, pending=None if place in (file.path, data_files.contract_1_path(file.path)) else place)


# -- vacuum ---------------------------------------------------------------------------------------


def _vacuum_version(root: str, name: str, older_than_s: float) -> MaintenanceResult:
    with Transaction(root, "vacuum", new_run_id()) as transaction:
        base = require_base(transaction)
        cutoff = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_s)
        old_numbers, kept_paths = _old_snapshots(root, base, cutoff)
        files = [
            f"{SUPERSEDED}/{folder}/{file}"
            for folder in FOLDERS_ON_DISK
            for file in transaction.folder.list_files(f"{SUPERSEDED}/{folder}")
            if current_path(f"{folder}/{file}") not in kept_paths
        ]
        leftovers, freed = transaction.leftovers(), 0
        if old_numbers or files or leftovers:
            transaction.fence()
        for number in old_numbers:
            snapshots.delete(root, number)
        # a writer that takes over from here on finds no snapshot that names the files; an earlier one has the lease
        transaction.lease.check()
        for file in files:
            with contextlib.suppress(SampleError, RefusedFile):  # it is missing, or not a regular file
                freed += transaction.folder.size(file)
            transaction.folder.remove(file)
        for leftover in leftovers:
            transaction.folder.remove_folder(leftover)
        return MaintenanceResult(name, transaction.number, removed=len(files), bytes=freed)


def _old_snapshots(root: str, base: Snapshot, cutoff: datetime.datetime) -> tuple[list[int], set[str]]:
    """Returns the numbers of the snapshots to delete, and the paths that the other snapshots name."""
    old_numbers, kept_paths, replaced_at = list[int](), {one.path for one in base.files()}, base.created
    for number in sorted(set(snapshots.numbers(root)) - {base.number}, reverse=True):
        snapshot = snapshots.read(root, number)
        if datetime.datetime.fromisoformat(replaced_at) < cutoff or set(base.forgotten) - set(snapshot.forgotten):
            old_numbers.append(number)
        else:
            kept_paths |= {one.path for one in snapshot.files()}
        replaced_at = snapshot.created
    return old_numbers, kept_paths
