"""Describes snapshots, versions and the results of maintenance, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline import storage
from pipeline.core.terminal import Console, count, print_table, print_wrapped, size
from pipeline.dataset import _open as datasets
from pipeline.dataset._values import time_text
from pipeline.dataset.commit import catalog, pins, snapshots
from pipeline.dataset.commit.pins import Pin
from pipeline.dataset.maintenance import MaintenanceResult


def snapshots_document(path: str, version: str | None) -> dict[str, Any]:
    """Returns the snapshots of a version with their pins, oldest first. Raises ``ConfigError`` if there is none."""
    root = datasets.open(path, version).root
    found, (pinned, unreadable) = [], pins.pins(root)
    numbers = snapshots.numbers(root)
    for number in sorted(numbers):
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
                "pins": [_pin_document(pin) for pin in pinned if pin.snapshot == number],
            }
        )
    return {
        "dataset": path,
        "version": root.rsplit("/", 1)[-1],
        "snapshots": found,
        "pins_without_snapshot": [
            {"snapshot": pin.snapshot, **_pin_document(pin)} for pin in pinned if pin.snapshot not in numbers
        ],
        "pins_unreadable": unreadable,
    }


def _pin_document(pin: Pin) -> dict[str, Any]:
    return {"name": pin.name, "created": pin.created, "until": pin.until, "expired": pin.is_expired()}


def show_snapshots(path: str, version: str | None, console: Console) -> None:
    """Prints the snapshots of a version with their pins, oldest first. Raises ``ConfigError`` if there is none."""
    figures, document = ("rows", "failures", "shards"), snapshots_document(path, version)
    has_pins = any(one["pins"] for one in document["snapshots"])
    rows = [
        [
            str(one["snapshot"]),
            time_text(one["created"]),
            one["kind"],
            one["run_id"],
            *(str(one[name]) for name in figures),
            *([", ".join(map(_pin_text, one["pins"])) or "–"] if has_pins else []),
        ]
        for one in document["snapshots"]
    ]
    columns = ["snapshot", "created (UTC)", "by", "run", *figures, *(["pins"] if has_pins else [])]
    print_table(console, columns, rows, figures)
    for pin in document["pins_without_snapshot"]:
        print_wrapped(console, f"pin {_pin_text(pin)} names snapshot {pin['snapshot']}, which has gone")
    for place in document["pins_unreadable"]:
        print_wrapped(console, f"{place} is no file of pins: remove it")


def _pin_text(pin: dict[str, Any]) -> str:
    """Returns a pin with its date, in UTC."""
    if pin["until"] is None:
        return str(pin["name"])
    return f"{pin['name']} ({'expired' if pin['expired'] else 'until'} {time_text(pin['until'])})"


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
    "vacuumed": {
        "removed": "files_deleted",
        "bytes": "bytes_freed",
        "runs": "run_folders_deleted",
        "pins_removed": "pins_removed",
        "pins_expired": "pins_expired",
        "pins_unreadable": "pins_unreadable",
    },
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
        runs = f" and {count(one.runs, 'folder of an old run', 'folders of old runs')}" if one.runs else ""
        result = {
            "rewrote": f"{files} rewritten, {count(one.removed, 'deleted row')} left out, {written}",
            "rolled back": "the rows are those of the old snapshot again",
            "forgot": f"{count(one.removed, 'row or failure', 'rows and failures')} removed from {files}, {written}",
            "vacuumed": f"{count(one.removed, 'file')}{runs} deleted, {size(one.bytes)} freed",
            "discarded": f"{count(one.removed, 'run')} removed, with all files",
        }[what]
        snapshot = f" · snapshot {one.snapshot}" if one.snapshot else ""
        print_wrapped(console, f"{one.version}: {result}{snapshot}")
        if one.pins_removed:
            why = "their snapshots held forgotten samples, or had gone"
            print_wrapped(console, f"{one.version}: pins removed, since {why}: {', '.join(one.pins_removed)}")
        if one.pins_expired:
            print_wrapped(console, f"{one.version}: pins that had expired: {', '.join(one.pins_expired)}")
        for place in one.pins_unreadable:
            print_wrapped(console, f"{one.version}: {place} is no file of pins; its snapshot is kept: remove the file")
