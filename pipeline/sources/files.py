"""The files source: a folder, a glob or one file, on any fsspec URL.

A sample is one file, or a group of files with the same stem and different roles (``a.jpg`` and ``a.txt``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import LISTING
from pipeline.sources._files.config import Config
from pipeline.sources._files.grouping import Row, SampleGrouping
from pipeline.sources._files.local_walk import FoundFile, LocalWalk
from pipeline.sources._files.location import Location, before_glob, locate
from pipeline.sources._files.omissions import OmissionCounter
from pipeline.sources._files.remote_walk import RemoteWalk
from pipeline.sources._files.selection import Selection
from pipeline.sources._shared.refused_roots import RefusedTally, check_roots
from pipeline.sources._shared.sample_ids import LISTING_ROWS
from pipeline.storage.roots import AllowedRoots

__all__ = ["Config", "FilesSource"]

_Files = list[FoundFile]


class FilesSource:
    """Lists the samples below a path, folder by folder. Opens no file, except for ``version: sha256``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.where = "source"
        self.refused_folders: list[str] = []
        self.left_out: dict[str, int] = {}

    def check(self, where: str) -> None:
        """Checks that the path can be reached and holds a sample.

        Raises:
            ConfigError: unreachable, no file there, a glob that cannot be read.
        """
        self.where = where
        storage.check_answers(before_glob(self.config.path), f"{where}.path")
        check_roots(self.allowed_roots(), f"{where}.path")
        storage.check_readable(self._location.root, f"{where}.path")
        if next(self._folders(), None) is None:
            raise self._no_sample()

    def passthrough(self) -> pa.Schema:
        """Returns an empty schema: files have no columns to copy."""
        return pa.schema([])

    def allowed_roots(self) -> AllowedRoots:
        """Returns the folder; with ``follow_symlinks`` also what links in it lead to."""
        key = f"{self.where}.follow_symlinks"
        return AllowedRoots((self._location.root,), self.config.follow_symlinks, key, anchored=False)

    def lists(self, url: str) -> bool:
        """Returns whether a file at ``url`` would be a sample."""
        fs, path = storage.split(url)
        root_fs, root = storage.split(self._location.root)
        path, root = (os.path.abspath(one) if isinstance(fs, LocalFileSystem) else one for one in (path, root))
        if type(fs) is not type(root_fs) or not path.startswith(root.rstrip("/") + "/"):
            return False
        below = path[len(root.rstrip("/")) + 1 :]
        names = below.split("/")
        enters = (self._selection.enters("/".join(names[:i])) for i in range(1, len(names)))
        return self._selection.wants(below) and all(enters)

    def list(self) -> Iterator[pa.Table]:
        """Yields tables of schema ``LISTING``, at most ``LISTING_ROWS`` rows each, ordered by sample_id within each.

        Raises:
            ConfigError: no sample, only samples that are refused, two paths with the same id, a folder that cannot be
                listed.
        """
        rows: list[Row] = []
        tally = RefusedTally()
        self.refused_folders.clear()
        self.left_out.clear()
        by_content = self.config.version == "sha256"
        grouping = SampleGrouping(self._location.root, by_content, self.allowed_roots(), self.where)
        for files in self._folders():
            samples = list(grouping.rows(files))
            tally.rows += len(samples)
            tally.refused += sum("forbidden" in sample for sample in samples)
            rows.extend(samples)
            while len(rows) >= LISTING_ROWS:
                yield _table(rows[:LISTING_ROWS])
                rows = rows[LISTING_ROWS:]
        if not tally.rows:
            raise self._no_sample()
        if tally.refused == tally.rows:
            raise ConfigError(
                f"{self.where}.follow_symlinks",
                f"all {tally.rows} samples of {self.config.path!r} are links that lead out of it",
                "where they are meant to be read: follow_symlinks: true",
            )
        if rows:
            yield _table(rows)

    def duplicate_id_error(self, sample_id: str) -> ConfigError:
        """Returns the error for an id that is listed twice: the folder changed while it was listed, since each path has
        an id of its own."""
        return ConfigError(f"{self.where}.path", f"two files have the sample_id {sample_id!r}", "list it again")

    def _folders(self) -> Iterator[_Files]:
        """Yields the wanted files of each folder that has some."""
        fs, path = storage.split(self._location.root)
        where = f"{self.where}.path"
        omissions = OmissionCounter(self._selection, self.config, self.left_out)
        if isinstance(fs, LocalFileSystem):
            follow = self.config.follow_symlinks
            walk = iter(LocalWalk(path, self._selection, omissions, follow, self.refused_folders, where))
        else:
            walk = iter(RemoteWalk(fs, path.rstrip("/"), self._selection, omissions, where))
        yield from (files for files in walk if files)

    @cached_property
    def _location(self) -> Location:
        try:
            return locate(self.config.path)
        except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
            raise ConfigError(
                f"{self.where}.path",
                f"cannot reach {self.config.path!r} ({describe(error)})",
                "give a folder, a file or a glob that can be read",
            ) from error

    @cached_property
    def _selection(self) -> Selection:
        return Selection(self._location, self.config)

    def _no_sample(self) -> ConfigError:
        fs, path = storage.split(self._location.root)
        with suppress(OSError):  # a file
            if isinstance(fs, LocalFileSystem) and not os.listdir(path):
                found = f"{path!r} is an empty folder"
                return ConfigError(f"{self.where}.path", found, "a folder or a glob with files; is it mounted?")
        return ConfigError(
            f"{self.where}.path",
            f"no file in {self.config.path!r} that is a sample",
            "give a folder or a glob with files; see source.include and source.exclude",
        )


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["sample_id"])), schema=LISTING)
