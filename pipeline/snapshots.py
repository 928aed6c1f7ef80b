"""What a dataset is at each moment: numbered snapshots, each created exclusively, which is the commit.

A snapshot names every live file, with its digest and the positions of rows that are no longer in it. Files of new rows
lie where they stay; what replaces rows waits under ``_runs/<run_id>/pending/`` until the snapshot that names it is
there, and is moved afterwards; what no longer counts is moved to ``_superseded/``. Moves may be done twice, by anybody:
`settle` rolls forward what a killed writer left.

A dataset may come from somebody else. Where its JSON becomes objects (`Snapshot.of`, `File.of`), only names that the
writer itself makes are accepted, each in its own folder, and only numbers that fit one another; and its files are
reached by `pipeline.folder`, which follows no link.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.core.schema import CONTRACT
from pipeline.core.strict_json import Value
from pipeline.folder import DatasetFolder, NotAFolder

SUPERSEDED = "_superseded"
FOLDERS = ("data", "_failures", "_empty")
"""Where live files are: rows, failures, windows that hold nothing. Files lie in one of them, or in the one of the same
name below ``_runs/<run_id>/pending`` or `SUPERSEDED`, and nowhere else."""
RENAMED = {"_failures": "failures"}
"""What contract 1 called a folder. Its snapshots name files there; the next commit moves them."""
FOLDERS_ON_DISK = (*FOLDERS, *RENAMED.values())
Kind = Literal["extract", "compact", "rollback", "forget", "vacuum"]
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{4,32}")
"""A run's name, and that of its folder below ``_runs``."""
_FILE = re.compile(rf"({'|'.join(FOLDERS_ON_DISK)})/({RUN_ID.pattern})-[A-Za-z0-9-]{{1,64}}\.parquet")
_PENDING = re.compile(rf"_runs/(?:{RUN_ID.pattern})/pending/(.+)")
_NUMBER = re.compile(r"([0-9]{8,15})\.json")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_CURRENT = "_current.json"
_MOST = 10**12
"""The number of a snapshot; so that there is a name for the next ones."""
_SMALL_BYTES = 1 << 20
"""More than any file that names a version, a lease or a run."""


@dataclass(frozen=True)
class File:
    """One Parquet file of a snapshot."""

    path: str
    """Relative to the version's folder; where it lies once all moves are done. In one of `FOLDERS`, also where a
    snapshot of contract 1 calls that folder otherwise."""
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
        pending = [self.pending] if self.pending else []
        paths = dict.fromkeys((self.path, contract_1_path(self.path)))
        return tuple(dict.fromkeys([self.path, *pending, *paths, *(f"{SUPERSEDED}/{path}" for path in paths)]))

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
    def of(values: Mapping[str, Any] | Value, folder: str | None = None) -> File:
        """Of what `plain` gave.

        Args:
            values: or where it was read from, for errors.
            folder: the one of `FOLDERS` that it must lie in; None: any.

        Raises:
            ConfigError: a name that no writer makes, or numbers that do not fit.
        """
        one = values if isinstance(values, Value) else Value(values, "a write task")
        path, rows = file_path(one.member("path"), folder), one.member("rows").integer()
        return File(
            path,
            rows,
            one.member("bytes").integer(),
            one.member("sha256").string(_SHA256, "64 hexadecimal digits"),
            one.member("deleted", []).integers(below=rows),
            _pending(one.member("pending", None), path),
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
    """Where the files of samples had to lie (`pipeline.storage.roots.AllowedRoots.plain`). Where it changes, those that were
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
    def of(values: Value) -> Snapshot:
        """Of what `json` gave. Raises ``ConfigError`` for anything that no writer makes."""
        created = values.member("created").string(_CREATED, "a time with its offset from UTC")
        try:
            datetime.datetime.fromisoformat(created)
        except ValueError:
            values.member("created").fail("a time with its offset from UTC")
        kind = values.member("kind", "extract")
        if kind.value not in get_args(Kind):
            kind.fail(f"one of {', '.join(get_args(Kind))}")
        lists = values.member("shards"), values.member("failures"), values.member("empty", [])
        shards, failures, empty = (
            tuple(File.of(one, folder) for one in files.items()) for files, folder in zip(lists, FOLDERS, strict=True)
        )
        paths = [one.path for one in (*shards, *failures, *empty)]
        if len(set(paths)) < len(paths):
            values.member("shards").fail("each file once")
        return Snapshot(
            number=values.member("snapshot").integer(least=1, most=_MOST),
            run_id=run_id(values.member("run_id")),
            kind=kind.value,
            created=created,
            identities=_identities(values.member("features", {})),
            shards=shards,
            failures=failures,
            empty=empty,
            retired=tuple(file_path(one) for one in values.member("retired", []).items()),
            forgotten=tuple(
                one.string(_SHA256, "64 hexadecimal digits") for one in values.member("forgotten", []).items()
            ),
            allowed_roots=tuple(one.string() for one in values.member("allowed_roots", []).items()),
            contract=values.member("contract").integer(least=1),
        )


def current_path(path: str) -> str:
    """Returns the path of a file that contract 1 may have named, as it is today."""
    folder, slash, name = path.partition("/")
    return f"{next((now for now, then in RENAMED.items() if then == folder), folder)}{slash}{name}"


def contract_1_path(path: str) -> str:
    """Returns the path that contract 1 had for a file."""
    folder, slash, name = path.partition("/")
    return f"{RENAMED.get(folder, folder)}{slash}{name}"


def file_path(value: Value, folder: str | None = None) -> str:
    """Where a file lies for good: ``<folder>/<run_id>-<...>.parquet``. Raises ``ConfigError`` for any other path."""
    allowed = f"a file of a run in {folder or ' or '.join(FOLDERS)}"
    path = current_path(value.string(_FILE, allowed))
    if folder is not None and not path.startswith(f"{folder}/"):
        value.fail(allowed)
    return path


def run_id(value: Value) -> str:
    """A run's name. Raises ``ConfigError`` for one that no writer makes."""
    return value.string(RUN_ID, "a run: date, time and some hexadecimal digits")


def _pending(value: Value, path: str) -> str | None:
    """Where the file of ``path`` lies until it is moved there."""
    if value.value is None:
        return None
    place = value.string()
    match = _PENDING.fullmatch(place)
    below = match[1] if match else place.removeprefix(f"{SUPERSEDED}/")
    if below == place or current_path(below) != path:
        value.fail(f"{path} of a run's pending files or of {SUPERSEDED}")
    return place


def _identities(value: Value) -> dict[str, Any]:
    for section in value.object().values():
        section.object()
    for one in value.member("features", {}).object().values():
        one.object()
    found: dict[str, Any] = value.plain()
    return found


def numbers(root: str) -> dict[int, str]:
    """Snapshots of the version at ``root``: number -> file name."""
    try:
        names = DatasetFolder(root).list_files("_snapshots", ".json")
    except NotAFolder:
        return {}
    found = {int(match[1]): name for name in names if (match := _NUMBER.fullmatch(name))}
    return {number: name for number, name in found.items() if name == _name(number)}


def read(root: str, number: int) -> Snapshot:
    """Raises ``ConfigError`` for a contract newer than this reader's, whatever the file system does otherwise; and for
    a file that is no snapshot."""
    folder, path = DatasetFolder(root), f"_snapshots/{_name(number)}"
    values = strict_json.parse(folder.read(path), folder.url(path))
    contract = values.member("contract").integer(least=1)
    if contract > CONTRACT:
        raise ConfigError("path", f"{root!r} is of contract {contract}, this reader knows {CONTRACT}", "update tessera")
    found = Snapshot.of(values)
    if found.number != number:
        values.member("snapshot").fail(f"{number}, as the file's name says")
    return found


def newest(root: str) -> Snapshot | None:
    """The snapshot that counts, or None before the first commit."""
    found = numbers(root)
    return read(root, max(found)) if found else None


def commit(root: str, snapshot: Snapshot) -> bool:
    """Create the snapshot; False if there is one of that number already: another writer was first.

    Raises:
        TesseraError: it is larger than a reader reads, or holds what a reader refuses.
    """
    data = snapshot.json()
    if len(data) > storage.MAX_READ_BYTES:
        raise TesseraError(
            f"snapshot {snapshot.number} of {root!r} would have {len(data)} bytes, more than the "
            f"{storage.MAX_READ_BYTES} that are read: run `tessera compact` first"
        )
    Snapshot.of(strict_json.parse(data, f"{_name(snapshot.number)}, which is not written"))  # else no reader could
    return DatasetFolder(root).publish_new(f"_snapshots/{_name(snapshot.number)}", data)


def delete(root: str, number: int) -> None:
    """Remove an old snapshot; what it names stays."""
    DatasetFolder(root).remove(f"_snapshots/{_name(number)}")


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
    """Do the moves that ``snapshot``, the newest, asks for; done ones are passed over.

    A snapshot of a later contract than 1 also moves its files out of the folders that contract 1 named.
    """
    place = DatasetFolder(root)
    present = {f"{folder}/{name}" for folder in FOLDERS_ON_DISK for name in place.list_files(folder, ".parquet")}
    for one in snapshot.files():
        before = contract_1_path(one.path)
        target = before if snapshot.contract == 1 else one.path
        if target in present:
            continue
        if before in present:
            place.move(before, target)
        elif one.pending:
            place.move(one.pending, target)
    for path in snapshot.retired:
        for there in dict.fromkeys((path, contract_1_path(path))):
            if there in present:
                place.move(there, f"{SUPERSEDED}/{there}")


def find(root: str, file: File) -> str:
    """Where ``file`` lies now, below ``root``. Raises ``FileNotFoundError`` if it lies nowhere."""
    folder = DatasetFolder(root)
    for place in file.places() * 2:  # it may be moved while it is looked for
        if folder.is_file(place):
            return place
    raise FileNotFoundError(folder.url(file.path))


# -- versions -------------------------------------------------------------------------------------


def versions(output: str) -> list[str]:
    """Versions of the dataset at ``output`` that have a snapshot, by name."""
    return [name for name in version_folders(output) if numbers(storage.join(output, name))]


def is_version(output: str, name: str) -> bool:
    """Returns whether ``name`` is one of `versions`. Reads no other version, which may be broken."""
    return bool(_VERSION.fullmatch(name) and numbers(storage.join(output, name)))


def version_folders(output: str) -> list[str]:
    """Returns the names of all version folders, sorted; a version whose first run has not committed is included."""
    return [name for name in DatasetFolder(output).list_folders("") if _VERSION.fullmatch(name)]


def no_dataset(output: str, or_version: bool = False) -> ConfigError:
    """Returns the error for an ``output`` without a version.

    Args:
        or_version: the caller also accepts the folder of one version.
    """
    if storage.is_local(output):
        with suppress(OSError, TesseraError), os.scandir(storage.split(output)[1]) as found:
            for one in found:
                if one.is_symlink() and _VERSION.fullmatch(one.name) and numbers(one.path):
                    what = f"{output!r} holds no dataset but {one.name!r}, a symbolic link, which is not followed"
                    more = ", or give the link itself" if or_version else ""
                    return ConfigError("path", what, f"move what it points to here{more}")
    more = ", or its version" if or_version else ""
    return ConfigError("path", f"{output!r} holds no dataset", f"give output.path of a finished run{more}")


def forgotten(output: str) -> tuple[str, ...]:
    """sha256 of the ids that any version bars."""
    found = (newest(storage.join(output, name)) for name in versions(output))
    return tuple(dict.fromkeys(one for snapshot in found if snapshot for one in snapshot.forgotten))


def current(output: str) -> str | None:
    """The version that a reader gets who names none; None if there is no dataset."""
    known = versions(output)
    if not known:
        return None
    folder = DatasetFolder(output)
    try:
        named = strict_json.parse(folder.read(_CURRENT, _SMALL_BYTES), folder.url(_CURRENT))
    except FileNotFoundError:
        named = Value({}, _CURRENT)
    for one in (named.member("version", None), named.member("until_then", None)):
        if one.value is not None and one.string() in known:
            return str(one.value)

    def created(name: str) -> tuple[str, str]:
        found = newest(storage.join(output, name))
        return (found.created if found else "", name)

    return max(known, key=created, default=None)


def make_current(output: str, version: str) -> None:
    """Name ``version`` as the one that readers get, from its first commit on: until then they get the one before."""
    named = {"version": version, "until_then": current(output)}
    DatasetFolder(output).publish(_CURRENT, json.dumps(named).encode())


def next_version(output: str) -> str:
    """A name for a further version: ``v<n>``, one more than the highest that is committed."""
    taken = [int(match[1]) for name in versions(output) if (match := re.fullmatch(r"v(\d{1,9})", name))]
    return f"v{max(taken, default=0) + 1}"


def _name(number: int) -> str:
    return f"{number:08d}.json"
