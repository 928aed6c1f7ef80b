"""What a dataset is at each moment: numbered snapshots, each created exclusively, which is the commit.

A snapshot names every live file, with its digest and the positions of rows that are no longer in it. Files of new rows
lie where they stay; what replaces rows waits under ``_runs/<run_id>/pending/`` until the snapshot that names it is
there, and is moved afterwards; what no longer counts is moved to ``_superseded/``. Moves may be done twice, by anybody:
`settle` rolls forward what a killed writer left.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.schema import CONTRACT

SUPERSEDED = "_superseded"
FOLDERS = ("data", "failures", "_empty")
"""Where live files are: rows, failures, windows that hold nothing."""
Kind = Literal["extract", "compact", "rollback", "forget", "vacuum"]
_NUMBER = re.compile(r"(\d+)\.json")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CURRENT = "_current.json"


@dataclass(frozen=True)
class File:
    """One Parquet file of a snapshot."""

    path: str
    """Relative to the version's folder; where it lies once all moves are done."""
    rows: int
    bytes: int
    sha256: str
    deleted: tuple[int, ...] = ()
    """Positions of rows that are no longer there, ascending."""
    pending: str | None = None
    """Where it lies until it is moved."""

    @property
    def live(self) -> int:
        return self.rows - len(self.deleted)

    def places(self) -> tuple[str, ...]:
        """Where to look for it, in this order, at any time."""
        return (self.path, *([self.pending] if self.pending else []), f"{SUPERSEDED}/{self.path}")

    def without(self, positions: Iterator[int] | set[int] | list[int]) -> File:
        """The same file with further rows deleted."""
        return replace(self, deleted=tuple(sorted({*self.deleted, *positions})))

    def plain(self) -> dict[str, Any]:
        values: dict[str, Any] = {"path": self.path, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}
        if self.deleted:
            values["deleted"] = list(self.deleted)
        if self.pending:
            values["pending"] = self.pending
        return values

    @staticmethod
    def of(values: dict[str, Any]) -> File:
        return File(
            str(values["path"]),
            int(values["rows"]),
            int(values["bytes"]),
            str(values["sha256"]),
            tuple(values.get("deleted", ())),
            values.get("pending"),
        )


@dataclass(frozen=True)
class Snapshot:
    """A committed list of files: the dataset at one moment."""

    number: int
    run_id: str
    kind: Kind
    created: str
    identities: dict[str, Any] = field(default_factory=dict)
    """Feature -> what decides its values; and ``passthrough``: the corpus's own columns with their types."""
    shards: tuple[File, ...] = ()
    failures: tuple[File, ...] = ()
    empty: tuple[File, ...] = ()
    """Windows that hold nothing any feature reads, kept so that no later run opens their files again."""
    retired: tuple[str, ...] = ()
    """Files of the snapshot before that this one does not name."""
    forgotten: tuple[str, ...] = ()
    """sha256 of the ids of samples that must not come back."""
    allowed_roots: tuple[str, ...] = ()
    """Where the files of samples had to lie (`pipeline.roots.AllowedRoots.plain`). Where it changes, those that were
    elsewhere are tried again."""
    contract: int = CONTRACT

    def files(self) -> tuple[File, ...]:
        return (*self.shards, *self.failures, *self.empty)

    def json(self) -> bytes:
        values = {
            "contract": self.contract,
            "snapshot": self.number,
            "run_id": self.run_id,
            "kind": self.kind,
            "created": self.created,
            "features": self.identities,
            "shards": [one.plain() for one in self.shards],
            "failures": [one.plain() for one in self.failures],
            "empty": [one.plain() for one in self.empty],
            "retired": list(self.retired),
            "forgotten": list(self.forgotten),
            "allowed_roots": list(self.allowed_roots),
        }
        return json.dumps(values, indent=1).encode()

    @staticmethod
    def of(values: dict[str, Any]) -> Snapshot:
        return Snapshot(
            number=int(values["snapshot"]),
            run_id=str(values["run_id"]),
            kind=values.get("kind", "extract"),
            created=str(values["created"]),
            identities=dict(values.get("features", {})),
            shards=tuple(File.of(one) for one in values["shards"]),
            failures=tuple(File.of(one) for one in values["failures"]),
            empty=tuple(File.of(one) for one in values.get("empty", ())),
            retired=tuple(values.get("retired", ())),
            forgotten=tuple(values.get("forgotten", ())),
            allowed_roots=tuple(values.get("allowed_roots", ())),
            contract=int(values["contract"]),
        )


def numbers(root: str) -> dict[int, str]:
    """Snapshots of the version at ``root``: number -> file name."""
    try:
        names = storage.list_files(storage.join(root, "_snapshots"), ".json")
    except NotADirectoryError:
        return {}
    return {int(match[1]): name for name in names if (match := _NUMBER.fullmatch(name))}


def read(root: str, number: int) -> Snapshot:
    """Raises ``ConfigError`` for a contract newer than this reader's, whatever the file system does otherwise."""
    return _parsed(storage.read_bytes(_path(root, number)), root)


def newest(root: str) -> Snapshot | None:
    """The snapshot that counts, or None before the first commit."""
    found = numbers(root)
    return _parsed(storage.read_bytes(storage.join(root, "_snapshots", found[max(found)])), root) if found else None


def commit(root: str, snapshot: Snapshot) -> bool:
    """Create the snapshot; False if there is one of that number already: another writer was first."""
    return storage.publish_new(_path(root, snapshot.number), snapshot.json())


def delete(root: str, number: int) -> None:
    """Remove an old snapshot; what it names stays."""
    storage.remove(_path(root, number))


def following(
    before: Snapshot | None,
    run_id: str,
    kind: Kind,
    identities: dict[str, Any],
    shards: list[File],
    failures: list[File],
    empty: list[File],
    forgotten: tuple[str, ...] | None = None,
    allowed_roots: tuple[str, ...] | None = None,
) -> Snapshot:
    """The snapshot after ``before``, of these files; those without a live row are left out. What is None stays."""
    lists = [tuple(sorted((f for f in files if f.live), key=lambda f: f.path)) for files in (shards, failures, empty)]
    named = {one.path for files in lists for one in files}
    return Snapshot(
        number=before.number + 1 if before else 1,
        run_id=run_id,
        kind=kind,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        identities=identities,
        shards=lists[0],
        failures=lists[1],
        empty=lists[2],
        retired=tuple(one.path for one in (before.files() if before else ()) if one.path not in named),
        forgotten=forgotten if forgotten is not None else before.forgotten if before else (),
        allowed_roots=allowed_roots if allowed_roots is not None else before.allowed_roots if before else (),
    )


def settle(root: str, snapshot: Snapshot) -> None:
    """Do the moves that ``snapshot``, the newest, asks for; done ones are passed over."""
    present = {
        f"{folder}/{name}" for folder in FOLDERS for name in storage.list_files(storage.join(root, folder), ".parquet")
    }
    for one in snapshot.files():
        if one.pending and one.path not in present:
            storage.move(storage.join(root, one.pending), storage.join(root, one.path))
    for path in snapshot.retired:
        if path in present:
            storage.move(storage.join(root, path), storage.join(root, SUPERSEDED, path))


def find(root: str, file: File) -> str:
    """The URL where ``file`` lies now. Raises ``FileNotFoundError`` if it lies nowhere."""
    for place in file.places():
        url = storage.join(root, place)
        if storage.exists(url):
            return url
    raise FileNotFoundError(storage.join(root, file.path))


# -- versions -------------------------------------------------------------------------------------


def versions(output: str) -> list[str]:
    """Versions of the dataset at ``output`` that have a snapshot, by name."""
    return [name for name in storage.list_folders(output) if numbers(storage.join(output, name))]


def forgotten(output: str) -> tuple[str, ...]:
    """sha256 of the ids that any version bars."""
    found = (newest(storage.join(output, name)) for name in versions(output))
    return tuple(dict.fromkeys(one for snapshot in found if snapshot for one in snapshot.forgotten))


def current(output: str) -> str | None:
    """The version that a reader gets who names none; None if there is no dataset."""
    known = versions(output)
    if not known:
        return None
    try:
        named = json.loads(storage.read_bytes(storage.join(output, _CURRENT)))
    except FileNotFoundError:
        named = {}
    for one in (named.get("version"), named.get("until_then")):
        if one in known:
            return str(one)

    def created(name: str) -> tuple[str, str]:
        found = newest(storage.join(output, name))
        return (found.created if found else "", name)

    return max(known, key=created, default=None)


def make_current(output: str, version: str) -> None:
    """Name ``version`` as the one that readers get, from its first commit on: until then they get the one before."""
    named = {"version": version, "until_then": current(output)}
    storage.publish(storage.join(output, _CURRENT), json.dumps(named).encode())


def next_version(output: str) -> str:
    """A name for a further version: ``v<n>``, one more than the highest that is committed."""
    taken = [int(match[1]) for name in versions(output) if (match := re.fullmatch(r"v(\d+)", name))]
    return f"v{max(taken, default=0) + 1}"


def _path(root: str, number: int) -> str:
    return storage.join(root, "_snapshots", f"{number:08d}.json")


def _parsed(data: bytes, root: str) -> Snapshot:
    values = json.loads(data)
    if values["contract"] > CONTRACT:
        raise ConfigError(
            "path", f"{root!r} is of contract {values['contract']}, this reader knows {CONTRACT}", "update tessera"
        )
    return Snapshot.of(values)
