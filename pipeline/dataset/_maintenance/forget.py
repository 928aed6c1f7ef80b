"""Removes samples from all versions of a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pipeline import storage
from pipeline.core.errors import TesseraError
from pipeline.dataset._maintenance.rewrite import commit_rewrite, has_samples, rewrite
from pipeline.dataset._maintenance.steps import MaintenanceResult, require_base
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import new_run_id
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff.result import sample_hash
from pipeline.dataset.output import OutputConfig


def forget(path: str, sample_ids: Sequence[str]) -> list[MaintenanceResult]:
    """Removes samples from every version: rows, failures and pending work. Later runs do not add them again.

    Old snapshots have the samples until `vacuum` deletes them.

    Raises:
        ConfigError: no dataset at ``path``.
        TesseraError: a version is in use or damaged. The other versions are still processed; the message lists both.
    """
    done, failed, seen = list[MaintenanceResult](), dict[str, TesseraError](), set[str]()
    if not _readable_versions(path, failed) and not failed:
        raise catalog.no_dataset(path)
    while versions := [name for name in _readable_versions(path, failed) if name not in seen]:
        for name in versions:
            seen.add(name)
            with _collect_error(failed, name):
                done.append(_forget_in_version(path, name, sample_ids))
        for name in catalog.version_folders(path):  # versions whose first run is active or was killed
            if name not in seen and name not in failed:
                with _collect_error(failed, name):
                    _discard_first_run(storage.join(path, name))
    if len(failed) == 1 and not done:
        raise next(iter(failed.values()))
    if failed:
        forgotten = ", ".join(one.version for one in done) or "no version"
        reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise TesseraError(f"forgotten in {forgotten}, not yet in {', '.join(failed)} ({reasons})")
    return done


def _readable_versions(path: str, failed: dict[str, TesseraError]) -> list[str]:
    """Returns the versions that have a snapshot. Adds to ``failed`` those that cannot be read."""
    found = []
    for name in catalog.version_folders(path):
        with _collect_error(failed, name):
            found += [name] if snapshots.numbers(storage.join(path, name)) else []
    return found


@contextlib.contextmanager
def _collect_error(failed: dict[str, TesseraError], name: str) -> Iterator[None]:
    """Catches the error of one version, so that the others are still processed."""
    try:
        yield
    except TesseraError as error:
        failed[name] = error


def _discard_first_run(root: str) -> None:
    """Discards what the first run of a version wrote, if that run has not committed."""
    if DatasetFolder(root).list_files("_running"):
        with Transaction(root, "forget", new_run_id()) as transaction:
            if (
                transaction.base is None
            ):  # otherwise it has committed in the meantime: `forget` finds it in its next pass
                transaction.discard_interrupted()
                transaction.close()


def _forget_in_version(path: str, name: str, sample_ids: Sequence[str]) -> MaintenanceResult:
    root = storage.join(path, name)
    with Transaction(root, "forget", new_run_id()) as transaction:
        transaction.discard_interrupted()
        base = require_base(transaction)
        done = rewrite(
            transaction,
            base.file_set,
            lambda files: [one for one in files if has_samples(root, one, sample_ids)],
            OutputConfig(path=path),
            frozenset(sample_ids),
        )
        num_removed = sum(one.live for one in done.replaced) - sum(one.live for one in done.written)
        forgotten = tuple(dict.fromkeys([*base.forgotten, *(sample_hash(sample_id) for sample_id in sample_ids)]))
        return commit_rewrite(transaction, name, done, num_removed, forgotten)
