"""The result of a maintenance command, and the steps that all commands share."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import storage
from pipeline.core.errors import TesseraError
from pipeline.dataset.commit import catalog
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.commit.transaction import Transaction


@dataclass(frozen=True)
class MaintenanceResult:
    """What a maintenance command did to one version."""

    version: str
    snapshot: int
    """Number of the newest snapshot after the command."""
    rewritten: int = 0
    """Files that were read and replaced."""
    removed: int = 0
    """Rows that were removed; for `vacuum`, deleted files; for `discard`, discarded runs."""
    bytes: int = 0
    """Bytes written; for `vacuum`, bytes freed."""
    runs: int = 0
    """Folders of old runs that `vacuum` deleted."""
    pins_removed: tuple[str, ...] = ()
    """Names of pins that `vacuum` removed before their end: their snapshots had forgotten samples, or had gone."""
    pins_expired: tuple[str, ...] = ()
    """Names of pins that `vacuum` removed after their end."""
    pins_unreadable: tuple[str, ...] = ()
    """Files in the place of pins that no command writes. `vacuum` keeps their snapshots."""


def resolve_folder(path: str, version: str | None) -> tuple[str, str]:
    """Returns the folder and the name of ``version``, or of the current one. Raises ``ConfigError``."""
    name = catalog.resolve_version(path, version or None, "--version")
    return storage.join(path, name), name


def require_base(transaction: Transaction) -> Snapshot:
    """Returns the newest snapshot. Raises ``TesseraError`` if there is none."""
    if transaction.base is None:
        raise TesseraError(f"{transaction.root!r} has no snapshot")
    return transaction.base
