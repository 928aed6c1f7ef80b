"""What a dataset contains at each moment: numbered snapshots. Creating the next one exclusively is the commit.

A snapshot names every live file, with its digest and the positions of its deleted rows. Files of new rows are written
where they stay. Files that replace rows wait in ``_runs/<run_id>/pending/`` until the snapshot that names them is
committed, and are moved then. Files that are no longer live are moved to ``_superseded/``. Any process may repeat a
move, so `roll_forward` finishes what a killed writer did not move.

A dataset may come from an untrusted source. Where its JSON becomes objects (`Snapshot.of`, `File.of`), only names that
the writer itself produces are accepted, each in its own folder, and only numbers that are consistent; and its files are
opened through `pipeline.dataset.commit.folder`, which follows no symbolic link.
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
    FOLDERS_ON_DISK,
    SUPERSEDED,
    File,
    FileSet,
    contract_1_path,
    file_path,
    run_id,
)
from pipeline.dataset.commit.folder import DatasetFolder, NotAFolder

Kind = Literal["extract", "compact", "rollback", "forget", "vacuum"]
"""The command that committed a snapshot."""
_FILE_NAME = re.compile(r"([0-9]{8,15})\.json")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MAX_NUMBER = 10**12
"""Highest number of a snapshot. It leaves room for the names of further ones."""


@dataclass(frozen=True)
class Snapshot:
    """A committed list of files: the dataset at one moment."""

    number: int
    run_id: str
    kind: Kind
    created: str
    identities: dict[str, Any] = field(default_factory=dict)
    """``features``: feature -> the settings that determine its values. ``passthrough``: the columns of the corpus and
    their types."""
    shards: tuple[File, ...] = ()
    failures: tuple[File, ...] = ()
    empty: tuple[File, ...] = ()
    """Windows without content for any feature. They are recorded so that later runs do not open their files again."""
    retired: tuple[str, ...] = ()
    """Paths of files of the previous snapshot that this one does not name."""
    forgotten: tuple[str, ...] = ()
    """sha256 of the ids of samples that must not be added again."""
    allowed_roots: tuple[str, ...] = ()
    """Where the files of samples had to be (`pipeline.storage.roots.AllowedRoots.plain`). When this changes, samples
    whose files were elsewhere are tried again."""
    contract: int = CONTRACT

    @property
    def file_set(self) -> FileSet:
        """The files by kind."""
        return FileSet(self.shards, self.failures, self.empty)

    def files(self) -> tuple[File, ...]:
        return tuple(self.file_set)

    def json(self) -> bytes:
        """Returns the snapshot as the content of its file. `of` reads it."""
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
        """Parses what `json` returned. Raises ``ConfigError`` for anything that no writer produces."""
        created = values.member("created").string(_CREATED, "a time with its offset from UTC")
        try:
            datetime.datetime.fromisoformat(created)
        except ValueError:
            values.member("created").fail("a time with its offset from UTC")
        kind = values.member("kind", "extract")
        if kind.value not in get_args(Kind):
            kind.fail(f"one of {', '.join(get_args(Kind))}")
        lists = values.member("shards"), values.member("failures"), values.member("empty", [])
        files = FileSet.of(*(one.items() for one in lists))
        if len({one.path for one in files}) < len([*files]):
            values.member("shards").fail("each file once")
        return Snapshot(
            number=values.member("snapshot").integer(least=1, most=_MAX_NUMBER),
            run_id=run_id(values.member("run_id")),
            kind=kind.value,
            created=created,
            identities=_identities(values.member("features", {})),
            shards=files.rows,
            failures=files.failures,
            empty=files.empty,
            retired=tuple(file_path(one) for one in values.member("retired", []).items()),
            forgotten=tuple(
                one.string(_SHA256, "64 hexadecimal digits") for one in values.member("forgotten", []).items()
            ),
            allowed_roots=tuple(one.string() for one in values.member("allowed_roots", []).items()),
            contract=values.member("contract").integer(least=1),
        )


def _identities(value: Value) -> dict[str, Any]:
    """Returns the identities as plain values. Raises ``ConfigError`` unless sections and features are objects."""
    for section in value.object().values():
        section.object()
    for one in value.member("features", {}).object().values():
        one.object()
    found: dict[str, Any] = value.plain()
    return found


def numbers(root: str) -> dict[int, str]:
    """Returns the snapshots of the version at ``root``: number -> file name."""
    try:
        names = DatasetFolder(root).list_files("_snapshots", ".json")
    except NotAFolder:
        return {}
    found = {int(match[1]): name for name in names if (match := _FILE_NAME.fullmatch(name))}
    return {number: name for number, name in found.items() if name == _file_name(number)}


def read(root: str, number: int) -> Snapshot:
    """Reads one snapshot. Raises ``ConfigError`` for a contract newer than this reader's, and for a file that is no
    snapshot; ``FileNotFoundError`` if there is none of that number."""
    folder, path = DatasetFolder(root), f"_snapshots/{_file_name(number)}"
    values = strict_json.parse(folder.read(path), folder.url(path))
    contract = values.member("contract").integer(least=1)
    if contract > CONTRACT:
        raise ConfigError("path", f"{root!r} is of contract {contract}, this reader knows {CONTRACT}", "update tessera")
    found = Snapshot.of(values)
    if found.number != number:
        values.member("snapshot").fail(f"{number}, as the file's name says")
    return found


def newest(root: str) -> Snapshot | None:
    """Reads the newest snapshot, which is the current content; None before the first commit."""
    found = numbers(root)
    return read(root, max(found)) if found else None


def commit(root: str, snapshot: Snapshot) -> bool:
    """Creates the snapshot exclusively. Returns False if another writer has committed one of that number.

    Raises:
        TesseraError: the snapshot is larger than a reader accepts, or has values that a reader refuses.
    """
    data = snapshot.json()
    if len(data) > storage.MAX_READ_BYTES:
        raise TesseraError(
            f"snapshot {snapshot.number} of {root!r} would have {len(data)} bytes, more than the "
            f"{storage.MAX_READ_BYTES} that are read: run `tessera compact` first"
        )
    # the reader's own check: a snapshot that cannot be parsed would make the dataset unreadable
    Snapshot.of(strict_json.parse(data, f"{_file_name(snapshot.number)}, which is not written"))
    return DatasetFolder(root).publish_new(f"_snapshots/{_file_name(snapshot.number)}", data)


def delete(root: str, number: int) -> None:
    """Deletes an old snapshot, but not the files that it names."""
    DatasetFolder(root).remove(f"_snapshots/{_file_name(number)}")


def next_snapshot(
    before: Snapshot | None,
    run_id: str,
    kind: Kind,
    identities: dict[str, Any],
    files: FileSet,
    forgotten: tuple[str, ...] | None = None,
    allowed_roots: tuple[str, ...] | None = None,
) -> Snapshot:
    """Returns the snapshot after ``before``, without committing it.

    Args:
        before: the newest snapshot; None: there is none.
        files: all files of the new snapshot; a file without a live row is left out.
        forgotten: None: as in ``before``.
        allowed_roots: None: as in ``before``.
    """
    shards, failures, empty = (
        tuple(sorted((one for one in group if one.live), key=lambda one: one.path)) for _, group in files.by_kind()
    )
    named = {one.path for one in (*shards, *failures, *empty)}
    return Snapshot(
        number=before.number + 1 if before else 1,
        run_id=run_id,
        kind=kind,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        identities=identities,
        shards=shards,
        failures=failures,
        empty=empty,
        retired=tuple(one.path for one in (before.files() if before else ()) if one.path not in named),
        forgotten=forgotten if forgotten is not None else before.forgotten if before else (),
        allowed_roots=allowed_roots if allowed_roots is not None else before.allowed_roots if before else (),
    )


def roll_forward(root: str, snapshot: Snapshot) -> None:
    """Moves the files of the newest snapshot to their final places. Files that are there already are skipped.

    A snapshot of a contract later than 1 also moves its files out of the folders of contract 1.
    """
    folder = DatasetFolder(root)
    present = {f"{name}/{file}" for name in FOLDERS_ON_DISK for file in folder.list_files(name, ".parquet")}
    for one in snapshot.files():
        old_path = contract_1_path(one.path)
        target = old_path if snapshot.contract == 1 else one.path
        if target in present:
            continue
        if old_path in present:
            folder.move(old_path, target)
        elif one.pending:
            folder.move(one.pending, target)
    for path in snapshot.retired:
        for source in dict.fromkeys((path, contract_1_path(path))):
            if source in present:
                folder.move(source, f"{SUPERSEDED}/{source}")


def _file_name(number: int) -> str:
    return f"{number:08d}.json"
