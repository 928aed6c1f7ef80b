"""Keeping a dataset in order: compact, roll back, forget, vacuum. Each takes the lease and commits a snapshot
of its own before anything is removed; plain functions, no Ray."""

from __future__ import annotations

import contextlib
import datetime
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.core import schema as schemas
from pipeline.core.errors import ConfigError, SampleError, TesseraError
from pipeline.dataset._rewrite import _rewritten
from pipeline.dataset.commit import catalog, data_files, snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, SUPERSEDED, File, current_path
from pipeline.dataset.commit.folder import DatasetFolder, check_version
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff.columns import EMPTY, FAILURE, ROW
from pipeline.dataset.diff.result import sample_hash
from pipeline.dataset.output import OutputConfig
from pipeline.dataset.shards.reader import live_rows
from pipeline.storage.local_files import RefusedFile

_SMALL = 0.25
"""A shard of less than this share of ``shard_bytes`` is merged with others."""
_WORKING_FOLDERS = (SUPERSEDED, "_snapshots", "_runs", "_running", "_leases")
"""What else a version's folder holds."""
_LEAST_BYTES = 1024
"""Of a shard."""
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MOST_S = 5200 * _SECONDS["w"]


@dataclass(frozen=True)
class MaintenanceResult:
    """What upkeep did to one version."""

    version: str
    snapshot: int
    rewritten: int = 0
    """Files that were read and replaced."""
    removed: int = 0
    """Rows, or files for `vacuum`, that are gone."""
    bytes: int = 0
    """Written, or freed by `vacuum`."""


def compact(path: str, version: str | None = None, shard_bytes: int = 256 << 20) -> MaintenanceResult:
    """Merge small shards and apply deletions, so that a plain Parquet reader sees every row once.

    Raises:
        ConfigError: no dataset there.
        TesseraError: another run is at it, or one was interrupted and must be continued first.
    """
    if shard_bytes < _LEAST_BYTES:
        raise ConfigError("--shard-bytes", f"found {shard_bytes}", f"at least {_LEAST_BYTES}")
    root, name = _found(path, version)
    with Transaction(root, "compact", _run_id()) as transaction:
        transaction.refuse_interrupted()
        base = _base(transaction)
        sizes = OutputConfig(path=path, shard_bytes=shard_bytes)
        done, kept = MaintenanceResult(name, base.number), {}
        for what, files in _lists(base).items():
            old = _to_rewrite(files, shard_bytes)
            new = _rewritten(transaction, what, old, sizes) if old else []
            kept[what] = [*(one for one in files if one not in old), *new]
            done = replace(
                done,
                rewritten=done.rewritten + len(old),
                removed=done.removed + sum(len(one.deleted) for one in old),
                bytes=done.bytes + sum(one.bytes for one in new),
            )
        return _committed(transaction, base, kept, done) if done.rewritten else done


def rollback(path: str, to: int, version: str | None = None) -> MaintenanceResult:
    """Make the dataset what it was at snapshot ``to``, as a further snapshot. The next run brings it up to date again.

    Raises:
        ConfigError: no such snapshot, its files are gone, or it holds samples that were forgotten since.
        TesseraError: as `compact`.
    """
    root, name = _found(path, version)
    with Transaction(root, "rollback", _run_id()) as transaction:
        base = _base(transaction)
        known = snapshots.numbers(root)
        if to not in known:
            numbers = ", ".join(str(one) for one in sorted(known))
            raise ConfigError("--to", f"there is no snapshot {to} in {root!r}", f"one of: {numbers}")
        target = snapshots.read(root, to)
        if set(base.forgotten) - set(target.forgotten):
            raise ConfigError("--to", f"snapshot {to} holds samples that were forgotten since", "a later one")
        transaction.discard_interrupted()
        kept = {what: [_at_hand(root, one) for one in files] for what, files in _lists(target).items()}
        rows = sum(one.live for one in base.shards) - sum(one.live for one in target.shards)
        next_snapshot = snapshots.next_snapshot(
            base,
            transaction.run_id,
            "rollback",
            target.identities,
            kept[ROW],
            kept[FAILURE],
            kept[EMPTY],
            allowed_roots=target.allowed_roots,
        )
        transaction.commit(next_snapshot)
        return MaintenanceResult(name, next_snapshot.number, removed=max(0, rows))


def forget(path: str, sample_ids: Sequence[str]) -> list[MaintenanceResult]:
    """Remove samples from every version: rows, failures, pending work; and keep them from coming back. Old snapshots
    hold them until `vacuum`.

    Raises:
        ConfigError: no dataset there.
        TesseraError: a version is in use or broken. The other versions are processed all the same; the message names
            both.
    """
    done, failed, seen = list[MaintenanceResult](), dict[str, TesseraError](), set[str]()
    if not _readable_versions(path, failed) and not failed:
        raise catalog.no_dataset(path)
    while versions := [name for name in _readable_versions(path, failed) if name not in seen]:
        for name in versions:
            seen.add(name)
            with _collect_error(failed, name):
                done.append(_forget_in(path, name, sample_ids))
        for name in catalog.version_folders(path):  # a version's first run that goes on or was killed
            if name not in seen and name not in failed:
                with _collect_error(failed, name):
                    _discard_begun(storage.join(path, name))
    if len(failed) == 1 and not done:
        raise next(iter(failed.values()))
    if failed:
        forgotten = ", ".join(one.version for one in done) or "no version"
        why = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise TesseraError(f"forgotten in {forgotten}, not yet in {', '.join(failed)} ({why})")
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


def _discard_begun(root: str) -> None:
    """Discards what the first run of a version wrote, if that run has not committed."""
    if DatasetFolder(root).list_files("_running"):
        with Transaction(root, "forget", _run_id()) as transaction:
            if transaction.base is None:  # else it has committed meanwhile: the next round
                transaction.discard_interrupted()
                transaction.close()


def _forget_in(path: str, name: str, sample_ids: Sequence[str]) -> MaintenanceResult:
    root = storage.join(path, name)
    with Transaction(root, "forget", _run_id()) as transaction:
        transaction.discard_interrupted()
        base = _base(transaction)
        kept, one = {}, MaintenanceResult(name, base.number)
        for what, files in _lists(base).items():
            old = [file for file in files if _holds(root, file, sample_ids)]
            sizes = OutputConfig(path=path)
            new = _rewritten(transaction, what, old, sizes, set(sample_ids)) if old else []
            kept[what] = [*(file for file in files if file not in old), *new]
            gone = sum(file.live for file in old) - sum(file.live for file in new)
            one = replace(
                one,
                rewritten=one.rewritten + len(old),
                removed=one.removed + gone,
                bytes=one.bytes + sum(file.bytes for file in new),
            )
        barred = tuple(dict.fromkeys([*base.forgotten, *(sample_hash(sample_id) for sample_id in sample_ids)]))
        return _committed(transaction, base, kept, one, barred)


def vacuum(path: str, older_than_s: float, version: str | None = None) -> list[MaintenanceResult]:
    """Delete snapshots that have not been the newest for ``older_than_s``, and what only they name; and, whatever their
    age, those that hold forgotten samples. The newest stays.

    Raises:
        ConfigError: no dataset there.
        TesseraError: another run is at it.
    """
    done = []
    names = [version] if version is not None else catalog.versions(path)
    if not names:
        raise catalog.no_dataset(path)
    for name in names:
        root, name = _found(path, name)
        with Transaction(root, "vacuum", _run_id()) as transaction:
            base = _base(transaction)
            cutoff = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_s)
            kept, old_numbers, until = {one.path for one in base.files()}, list[int](), base.created
            for number in sorted(set(snapshots.numbers(root)) - {base.number}, reverse=True):
                old = snapshots.read(root, number)
                if datetime.datetime.fromisoformat(until) < cutoff or set(base.forgotten) - set(old.forgotten):
                    old_numbers.append(number)
                else:
                    kept |= {one.path for one in old.files()}
                until = old.created
            files = [
                f"{SUPERSEDED}/{folder}/{file}"
                for folder in FOLDERS_ON_DISK
                for file in transaction.folder.list_files(f"{SUPERSEDED}/{folder}")
                if current_path(f"{folder}/{file}") not in kept
            ]
            leftovers, freed = transaction.leftovers(), 0
            if old_numbers or files or leftovers:
                transaction.fence()
            for number in old_numbers:
                snapshots.delete(root, number)
            # who takes over from here on finds no snapshot that names the files; who did before has the lease
            transaction.lease.check()
            for file in files:
                with contextlib.suppress(SampleError, RefusedFile):  # it is gone, or no file
                    freed += transaction.folder.size(file)
                transaction.folder.remove(file)
            for leftover in leftovers:
                transaction.folder.remove_folder(leftover)
            assert transaction.base is not None
            done.append(MaintenanceResult(name, transaction.base.number, removed=len(files), bytes=freed))
    return done


def use(path: str, version: str) -> None:
    """Make ``version`` the current one. Raises ``ConfigError`` if there is none of that name."""
    catalog.make_current(path, _found(path, version)[1])


def seconds(age: str) -> float:
    """``7d``, ``12h``, ``90m``, ``30s``, ``2w``. Raises ``ConfigError``."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        raise ConfigError("--older-than", f"found {age!r}", "a number and one of s, m, h, d, w: 7d")
    found = float(match[1]) * _SECONDS[match[2]]
    if found > _MOST_S:
        raise ConfigError("--older-than", f"found {age!r}", f"at most {_MOST_S / _SECONDS['w']:.0f}w")
    return found


# -- parts ----------------------------------------------------------------------------------------


def _found(path: str, version: str | None) -> tuple[str, str]:
    if version is not None:
        check_version(path, version)
    name = version or catalog.current(path)
    if name is None:
        raise catalog.no_dataset(path)
    if not catalog.is_version(path, name):
        known = ", ".join(catalog.versions(path))
        raise ConfigError("--version", f"there is no version {name!r} in {path!r}", f"one of: {known}")
    return storage.join(path, name), name


def _base(transaction: Transaction) -> Snapshot:
    if transaction.base is None:
        raise TesseraError(f"{transaction.root!r} has no snapshot")
    return transaction.base


def _run_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def _lists(snapshot: Snapshot) -> dict[int, tuple[File, ...]]:
    return {ROW: snapshot.shards, FAILURE: snapshot.failures, EMPTY: snapshot.empty}


def _to_rewrite(files: Sequence[File], shard_bytes: int) -> list[File]:
    """Those with deleted rows, and small ones if there is more than one file to make of them."""
    small = [one for one in files if one.bytes < _SMALL * shard_bytes]
    return [one for one in files if one.deleted or (len(small) > 1 and one in small)]


def _holds(root: str, file: File, sample_ids: Sequence[str]) -> bool:
    wanted = pa.array(sorted(sample_ids), pa.string())
    schema = pa.schema([schemas.FIXED.field("sample_id")])
    return any(
        pc.any(pc.is_in(batch.column(0), value_set=wanted)).as_py()
        for batch in live_rows(root, replace(file, deleted=()), schema.names, schema=schema)
    )


def _at_hand(root: str, file: File) -> File:
    """The file of an old snapshot, waiting where it lies now."""
    try:
        place = data_files.find(root, file)
    except FileNotFoundError as error:
        raise ConfigError("--to", f"{file.path} is gone: it was vacuumed", "a later snapshot") from error
    return replace(file, pending=None if place in (file.path, data_files.contract_1_path(file.path)) else place)


def _committed(
    transaction: Transaction,
    base: Snapshot,
    kept: dict[int, list[File]],
    done: MaintenanceResult,
    forgotten: tuple[str, ...] | None = None,
) -> MaintenanceResult:
    next_snapshot = snapshots.next_snapshot(
        base,
        transaction.run_id,
        transaction.kind,
        base.identities,
        kept[ROW],
        kept[FAILURE],
        kept[EMPTY],
        forgotten,
    )
    transaction.commit(next_snapshot)
    return replace(done, snapshot=next_snapshot.number)
