"""Maintenance of a dataset: compact, rollback, forget, vacuum, use, pin, unpin.

Each command except `use`, `pin` and `unpin` takes the lease of a version, and commits a snapshot of its own before it
deletes anything that another writer may name. Ray is not used.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

from pipeline.core import durations
from pipeline.core.errors import ConfigError
from pipeline.dataset._maintenance.forget import forget
from pipeline.dataset._maintenance.rewrite import commit_rewrite, files_to_compact, is_small, rewrite
from pipeline.dataset._maintenance.steps import MaintenanceResult, require_base, resolve_folder
from pipeline.dataset._maintenance.vacuum import vacuum
from pipeline.dataset.commit import catalog, data_files, pins, snapshots
from pipeline.dataset.commit.data_files import File, FileSet, new_run_id
from pipeline.dataset.commit.pins import Pin
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.output import OutputConfig

__all__ = ["MaintenanceResult", "compact", "forget", "is_small", "pin", "rollback", "seconds", "unpin", "use", "vacuum"]

_MIN_SHARD_BYTES = 1024
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)


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


def use(path: str, version: str) -> None:
    """Makes ``version`` the current one. Raises ``ConfigError`` if there is no version of that name."""
    catalog.make_current(path, resolve_folder(path, version)[1])


def pin(path: str, name: str, at: int | None = None, until: str | None = None, version: str | None = None) -> Pin:
    """Names a snapshot, which `vacuum` then keeps; `pipeline.dataset.open` opens it by the name. Needs no lease.

    Args:
        path: ``output.path`` of the config.
        name: a letter, then at most 63 letters, digits, ``.``, ``_`` or ``-``.
        at: number of the snapshot; None: the newest.
        until: ISO date or time (UTC unless it has an offset) until which it is kept; None: until `unpin`.
        version: None: the current one.

    Raises:
        ConfigError: no dataset at ``path``, no such version or snapshot, a name or a time that is not allowed, a name
            that pins another snapshot.
        TesseraError: `vacuum` deletes the snapshot at the same time.
    """
    end = None if until is None else until_time(until)
    return pins.pin(resolve_folder(path, version)[0], name, at, end)


def unpin(path: str, name: str, version: str | None = None) -> None:
    """Removes a pin. Raises ``ConfigError`` if there is no dataset, or no pin of that name."""
    pins.unpin(resolve_folder(path, version)[0], name)


def seconds(age: str) -> float:
    """Parses an age: ``7d``, ``12h``, ``90m``, ``30s``, ``2w``. Raises ``ConfigError``."""
    return durations.seconds(age, "--older-than")


def until_time(text: str) -> datetime.datetime:
    """Parses the end of a pin: an ISO date (the end of that day in UTC) or a time (UTC if it has no offset). Raises
    ``ConfigError`` for neither, and for a time in the past."""
    allowed = "a date or a time in the future: 2027-01-31 or 2027-01-31T18:00"
    try:
        if not _TIME.fullmatch(text.strip()):
            raise ValueError(text)
        found = datetime.datetime.fromisoformat(text.strip())
        if len(text.strip()) == len("2027-01-31"):
            found = found.replace(hour=23, minute=59, second=59)
        found = found.replace(tzinfo=found.tzinfo or datetime.UTC).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise ConfigError("--until", f"found {text!r}", allowed) from None
    if found <= datetime.datetime.now(datetime.UTC):
        raise ConfigError("--until", f"{text!r} is in the past", allowed)
    return found


# -- rollback -------------------------------------------------------------------------------------


def _as_pending(root: str, file: File) -> File:
    """Returns a file of an old snapshot as one that is moved back by the commit. Raises ``ConfigError`` if it is
    deleted."""
    try:
        place = data_files.find(root, file)
    except FileNotFoundError as error:
        raise ConfigError("--to", f"{file.path} is gone: it was vacuumed", "a later snapshot") from error
    return replace(file, pending=None if place in (file.path, data_files.contract_1_path(file.path)) else place)
