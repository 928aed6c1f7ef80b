"""Describes snapshots, versions and the results of maintenance, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline import storage
from pipeline.core.terminal import Console, count, print_table, print_wrapped, size
from pipeline.dataset import reader as datasets
from pipeline.dataset._values import time_text
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.maintenance import MaintenanceResult


def snapshots_document(path: str, version: str | None) -> dict[str, Any]:
    """Returns the snapshots of a version, oldest first. Raises ``ConfigError`` if there is none."""
    root = datasets.open(path, version).root
    found = []
    for number in sorted(snapshots.numbers(root)):
        one = snapshots.read(root, number)
        found.append(
            {
                "snapshot": number,
                "created": one.created,
                "kind": one.kind,
                "run_id": one.run_id,
                "rows": sum(file.live for file in one.shards),
                "failures": sum(file.live for file in one.failures),
                "shards": len(one.shards),
                "bytes": sum(file.bytes for file in one.files()),
            }
        )
    return {"dataset": path, "version": root.rsplit("/", 1)[-1], "snapshots": found}


def show_snapshots(path: str, version: str | None, console: Console) -> None:
    """Prints the snapshots of a version, oldest first. Raises ``ConfigError`` if there is none."""
    figures = ("rows", "failures", "shards")
    rows = [
        [
            str(one["snapshot"]),
            time_text(one["created"]),
            one["kind"],
            one["run_id"],
            *(str(one[name]) for name in figures),
        ]
        for one in snapshots_document(path, version)["snapshots"]
    ]
    print_table(console, ["snapshot", "created (UTC)", "by", "run", *figures], rows, figures)


def versions_document(path: str) -> dict[str, Any]:
    """Returns the versions of a dataset. Raises ``ConfigError`` if there is none."""
    current = catalog.current(path)
    if current is None:
        raise catalog.no_dataset(path)
    found = []
    for name in catalog.versions(path):
        one = snapshots.newest(storage.join(path, name))
        assert one is not None
        found.append(
            {
                "version": name,
                "current": name == current,
                "snapshot": one.number,
                "created": one.created,
                "rows": sum(file.live for file in one.shards),
                "failures": sum(file.live for file in one.failures),
                "features": list(one.identities.get("features", {})),
            }
        )
    return {"dataset": path, "current": current, "versions": found}


def show_versions(path: str, console: Console) -> None:
    """Prints the versions of a dataset. Raises ``ConfigError`` if there is none."""
    rows = [
        [
            f"{one['version']} (current)" if one["current"] else one["version"],
            str(one["snapshot"]),
            time_text(one["created"]),
            str(one["rows"]),
            ", ".join(one["features"]),
        ]
        for one in versions_document(path)["versions"]
    ]
    print_table(console, ["version", "snapshot", "created (UTC)", "rows", "features"], rows, ["snapshot", "rows"])


_FIGURES: dict[str, dict[str, str]] = {
    "rewrote": {"rewritten": "files_rewritten", "removed": "deleted_rows_left_out", "bytes": "bytes_written"},
    "rolled back": {},
    "forgot": {"rewritten": "files_rewritten", "removed": "rows_and_failures_removed", "bytes": "bytes_written"},
    "vacuumed": {"removed": "files_deleted", "bytes": "bytes_freed"},
    "discarded": {"removed": "runs_removed"},
}
"""Command, in the past tense -> attribute of the result -> its name in JSON."""


def done_document(what: str, path: str, done: Iterable[MaintenanceResult]) -> dict[str, Any]:
    """Returns the result of a maintenance command for each version. ``what``: a key of `_FIGURES`."""
    names = _FIGURES[what]
    versions = [
        {
            "version": one.version,
            **({"snapshot": one.snapshot} if one.snapshot else {}),
            **{name: getattr(one, attribute) for attribute, name in names.items()},
        }
        for one in done
    ]
    return {"dataset": path, "versions": versions}


def show_done(what: str, done: Iterable[MaintenanceResult], console: Console) -> None:
    """Prints the result of a maintenance command, one line for each version. ``what``: a key of `_FIGURES`."""
    for one in done:
        files, written = count(one.rewritten, "file"), f"wrote {size(one.bytes)}"
        result = {
            "rewrote": f"{files} rewritten, {count(one.removed, 'deleted row')} left out, {written}",
            "rolled back": "the rows are those of the old snapshot again",
            "forgot": f"{count(one.removed, 'row or failure', 'rows and failures')} removed from {files}, {written}",
            "vacuumed": f"{count(one.removed, 'file')} deleted, {size(one.bytes)} freed",
            "discarded": f"{count(one.removed, 'run')} removed, with all files",
        }[what]
        snapshot = f" · snapshot {one.snapshot}" if one.snapshot else ""
        print_wrapped(console, f"{one.version}: {result}{snapshot}")
