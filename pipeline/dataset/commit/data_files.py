"""The Parquet files that snapshots name: kinds, paths, digests and deleted positions, and how to find each file."""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder

SUPERSEDED = "_superseded"
FOLDERS = ("data", "_failures", "_empty")
"""Folders of live files, in the order of `FileKind`. Every file is in one of them, or in the folder of the same name
below ``_runs/<run_id>/pending`` or `SUPERSEDED`."""
RENAMED = {"_failures": "failures"}
"""Today's folder name -> its name in contract 1. Snapshots of contract 1 name files there; the next commit moves
them."""
FOLDERS_ON_DISK = (*FOLDERS, *RENAMED.values())
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{4,32}")
"""The id of a run, which is also the name of its folder below ``_runs``."""
RUN_FILE = re.compile(rf"({RUN_ID.pattern})-.+\.parquet(\.[0-9a-f]+\.tmp)?")
"""The name of a file that a run wrote, or of the temporary file of an interrupted write. Group 1: the run's id."""
_FILE = re.compile(rf"({'|'.join(FOLDERS_ON_DISK)})/({RUN_ID.pattern})-[A-Za-z0-9-]{{1,64}}\.parquet")
_PENDING = re.compile(rf"_runs/(?:{RUN_ID.pattern})/pending/(.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileKind(IntEnum):
    """What the rows of a file are. The numbers are those of the ``row_kind`` column of `diff.columns.STATE`."""

    ROW = 0
    """Finished rows of samples."""
    FAILURE = 1
    """Features that could not be computed."""
    EMPTY = 2
    """Windows without content for any feature."""

    @property
    def folder(self) -> str:
        """The folder of live files of this kind."""
        return FOLDERS[self]


@dataclass(frozen=True)
class File:
    """One Parquet file of a snapshot."""

    path: str
    """The final path, relative to the version's folder, in one of `FOLDERS`. A path from a snapshot of contract 1 is
    translated to today's folder name."""
    rows: int
    """Rows in the file, deleted ones included."""
    bytes: int
    sha256: str
    deleted: tuple[int, ...] = ()
    """Positions of deleted rows, ascending."""
    pending: str | None = None
    """Where the file is until it is moved to ``path``; None: it is not moved."""

    @property
    def live(self) -> int:
        """Number of rows that are not deleted."""
        return self.rows - len(self.deleted)

    def places(self) -> tuple[str, ...]:
        """Returns all paths that the file can have, in the order in which to try them."""
        pending = [self.pending] if self.pending else []
        paths = dict.fromkeys((self.path, contract_1_path(self.path)))
        return tuple(dict.fromkeys([self.path, *pending, *paths, *(f"{SUPERSEDED}/{path}" for path in paths)]))

    def without(self, positions: Iterable[int]) -> File:
        """Returns a copy in which the rows at ``positions`` are deleted too."""
        return replace(self, deleted=tuple(sorted({*self.deleted, *positions})))

    def plain(self) -> dict[str, Any]:
        """Returns the file as values for JSON. `of` reads them."""
        values: dict[str, Any] = {"path": self.path, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}
        if self.deleted:
            values["deleted"] = list(self.deleted)
        if self.pending:
            values["pending"] = self.pending
        return values

    @staticmethod
    def of(values: Mapping[str, Any] | Value, folder: str | None = None) -> File:
        """Parses what `plain` returned.

        Args:
            values: a mapping, or a parsed JSON value, whose source is named in errors.
            folder: the one of `FOLDERS` that the path must be in; None: any.

        Raises:
            ConfigError: a path that no writer produces, or inconsistent numbers.
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
class FileSet:
    """The files of a snapshot, of a write task or of a commit, by kind. Iterates over all files, in the order of
    `FileKind`."""

    rows: tuple[File, ...] = ()
    failures: tuple[File, ...] = ()
    empty: tuple[File, ...] = ()

    @staticmethod
    def of(
        rows: Iterable[Mapping[str, Any] | Value],
        failures: Iterable[Mapping[str, Any] | Value],
        empty: Iterable[Mapping[str, Any] | Value],
    ) -> FileSet:
        """Parses what `File.plain` returned for the files of each kind.

        Raises:
            ConfigError: see `File.of`; also for a file in the folder of another kind.
        """
        lists = zip(FileKind, (rows, failures, empty), strict=True)
        return FileSet(*(tuple(File.of(one, kind.folder) for one in files) for kind, files in lists))

    @staticmethod
    def of_kinds(files: Iterable[tuple[FileKind, File]]) -> FileSet:
        """Groups files by their kind. The order within a kind is kept."""
        groups: dict[FileKind, list[File]] = {kind: [] for kind in FileKind}
        for kind, file in files:
            groups[kind].append(file)
        return FileSet(*(tuple(group) for group in groups.values()))

    def __iter__(self) -> Iterator[File]:
        return iter((*self.rows, *self.failures, *self.empty))

    def by_kind(self) -> Iterator[tuple[FileKind, tuple[File, ...]]]:
        """Yields each kind with its files."""
        return zip(FileKind, (self.rows, self.failures, self.empty), strict=True)

    def with_kinds(self) -> Iterator[tuple[FileKind, File]]:
        """Yields each file with its kind."""
        return ((kind, file) for kind, files in self.by_kind() for file in files)


def current_path(path: str) -> str:
    """Returns today's path of a file, given its path of today or of contract 1."""
    folder, slash, name = path.partition("/")
    return f"{next((now for now, then in RENAMED.items() if then == folder), folder)}{slash}{name}"


def contract_1_path(path: str) -> str:
    """Returns the path that a file had in contract 1, given its path of today."""
    folder, slash, name = path.partition("/")
    return f"{RENAMED.get(folder, folder)}{slash}{name}"


def file_path(value: Value, folder: str | None = None) -> str:
    """Parses the final path of a file, ``<folder>/<run_id>-<...>.parquet``.

    Raises:
        ConfigError: any other path, or one outside of ``folder``.
    """
    allowed = f"a file of a run in {folder or ' or '.join(FOLDERS)}"
    path = current_path(value.string(_FILE, allowed))
    if folder is not None and not path.startswith(f"{folder}/"):
        value.fail(allowed)
    return path


def run_id(value: Value) -> str:
    """Parses the id of a run. Raises ``ConfigError`` for one that no writer produces."""
    return value.string(RUN_ID, "a run: date, time and some hexadecimal digits")


def new_run_id() -> str:
    """Returns an id for a new run: the time in UTC and random digits."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def _pending(value: Value, path: str) -> str | None:
    """Parses where the file of ``path`` is until it is moved there. Raises ``ConfigError`` for any other place."""
    if value.value is None:
        return None
    place = value.string()
    match = _PENDING.fullmatch(place)
    below = match[1] if match else place.removeprefix(f"{SUPERSEDED}/")
    if below == place or current_path(below) != path:
        value.fail(f"{path} of a run's pending files or of {SUPERSEDED}")
    return place


def find(root: str, file: File) -> str:
    """Returns the path of ``file`` as it is now, below ``root``. Raises ``FileNotFoundError`` if there is no file."""
    folder = DatasetFolder(root)
    for place in file.places() * 2:  # another process may move the file between two checks
        if folder.is_file(place):
            return place
    raise FileNotFoundError(folder.url(file.path))
