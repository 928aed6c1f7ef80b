"""The Parquet files of a snapshot: names, digests, the positions of deleted rows, and where each file is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder

SUPERSEDED = "_superseded"
FOLDERS = ("data", "_failures", "_empty")
"""Where live files are: rows, failures, windows that hold nothing. Files lie in one of them, or in the one of the same
name below ``_runs/<run_id>/pending`` or `SUPERSEDED`, and nowhere else."""
RENAMED = {"_failures": "failures"}
"""What contract 1 called a folder. Its snapshots name files there; the next commit moves them."""
FOLDERS_ON_DISK = (*FOLDERS, *RENAMED.values())
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{4,32}")
"""A run's name, and that of its folder below ``_runs``."""
_FILE = re.compile(rf"({'|'.join(FOLDERS_ON_DISK)})/({RUN_ID.pattern})-[A-Za-z0-9-]{{1,64}}\.parquet")
_PENDING = re.compile(rf"_runs/(?:{RUN_ID.pattern})/pending/(.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def find(root: str, file: File) -> str:
    """Where ``file`` lies now, below ``root``. Raises ``FileNotFoundError`` if it lies nowhere."""
    folder = DatasetFolder(root)
    for place in file.places() * 2:  # it may be moved while it is looked for
        if folder.is_file(place):
            return place
    raise FileNotFoundError(folder.url(file.path))
