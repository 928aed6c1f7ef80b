"""What a dataset is at each moment: numbered snapshots, each created exclusively, which is the commit.

A snapshot names every live file, with its digest and the positions of rows that are no longer in it. Files of new rows
lie where they stay; what replaces rows waits under ``_runs/<run_id>/pending/`` until the snapshot that names it is
there, and is moved afterwards; what no longer counts is moved to ``_superseded/``. Moves may be done twice, by anybody:
`roll_forward` rolls forward what a killed writer left.

A dataset may come from somebody else. Where its JSON becomes objects (`Snapshot.of`, `File.of`), only names that the
writer itself makes are accepted, each in its own folder, and only numbers that fit one another; and its files are
reached by `pipeline.dataset.commit.folder`, which follows no link.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.core.schema import CONTRACT
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.data_files import (
    _SHA256,
    FOLDERS,
    FOLDERS_ON_DISK,
    SUPERSEDED,
    File,
    contract_1_path,
    file_path,
    run_id,
)
from pipeline.dataset.commit.folder import DatasetFolder, NotAFolder

Kind = Literal["extract", "compact", "rollback", "forget", "vacuum"]
_NUMBER = re.compile(r"([0-9]{8,15})\.json")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MOST = 10**12
"""The number of a snapshot; so that there is a name for the next ones."""


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
    """Where the files of samples had to be (`pipeline.storage.roots.AllowedRoots.plain`). Where it changes, those that
    were elsewhere are tried again."""
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


def next_snapshot(
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


def roll_forward(root: str, snapshot: Snapshot) -> None:
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


# -- versions -------------------------------------------------------------------------------------


def _name(number: int) -> str:
    return f"{number:08d}.json"
