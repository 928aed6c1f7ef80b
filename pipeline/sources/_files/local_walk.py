"""Walks a local folder and yields the files of each folder below it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from pipeline.core.errors import ConfigError
from pipeline.sources._files.location import cannot_list
from pipeline.sources._files.omissions import OmissionCounter, is_hidden
from pipeline.sources._files.selection import Selection
from pipeline.sources._shared.sample_ids import FORBIDDEN, MISSING, id_of, local_token

FoundFile = tuple[str, str]
"""A file: its path relative to the root, and its version token."""
_Inode = tuple[int, int]
"""Device and inode number, which identify a folder whatever path leads to it."""
_Folder = tuple[str, frozenset[_Inode]]
"""A folder to list: its path with a slash at the end, and the inodes of the folders on the way to it and of itself."""

_FREE_VISITS, _MAX_VISITS_PER_FOLDER = 10_000, 64
"""Links may lead to one folder by several paths, and each path is listed. Links to folders of links make exponentially
many paths, so that visits are bounded: this many, plus this many per folder."""


class LocalWalk:
    """Iterates over the folders below ``root`` and yields the wanted files of each, in order of name.

    A link that leads out of ``root`` is yielded with the token ``forbidden`` unless ``follow_symlinks`` is set. A path
    that is too long and a broken link are yielded with the token ``missing``; they become failures.

    Args:
        refused_folders: filled with the prefix of the sample ids of each folder that is not entered, since it is a
            link that leads out of ``root``.
        where: dotted path of the config key that names the corpus.

    Raises:
        ConfigError: a folder cannot be listed; links make too many paths.
    """

    def __init__(
        self,
        root: str,
        selection: Selection,
        omissions: OmissionCounter,
        follow_symlinks: bool,
        refused_folders: list[str],
        where: str,
    ) -> None:
        self._root, self._real_root = root, os.path.realpath(root)
        self._selection, self._omissions = selection, omissions
        self._follow_symlinks, self._refused_folders, self._where = follow_symlinks, refused_folders, where
        self._entered: set[_Inode] = set()
        self._visits = 0

    def __iter__(self) -> Iterator[list[FoundFile]]:
        status = os.stat(self._root)
        todo: list[_Folder] = [("", frozenset([(status.st_dev, status.st_ino)]))]
        while todo:
            prefix, inodes = todo.pop()
            path = os.path.join(self._root, prefix)
            try:
                with os.scandir(path) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise cannot_list(self._where, path, error) from error
                yield [(prefix.rstrip("/"), MISSING)]
                continue
            files: list[FoundFile] = []
            folders: list[_Folder] = []
            for entry in entries:
                self._add(entry, prefix, inodes, files, folders)
            yield files
            todo.extend(reversed(folders))

    def _add(
        self,
        entry: os.DirEntry[str],
        prefix: str,
        inodes: frozenset[_Inode],
        files: list[FoundFile],
        folders: list[_Folder],
    ) -> None:
        """Appends an entry to ``files`` or ``folders``, or counts it as left out."""
        path, is_link = prefix + entry.name, entry.is_symlink()
        if is_link and not self._follow_symlinks and not self._is_inside(entry.path):
            self._add_forbidden(entry.path, path, files)
            return
        try:
            status = os.stat(entry.path)
        except OSError as error:
            too_long = error.errno == errno.ENAMETOOLONG
            if not is_link and not too_long and not isinstance(error, FileNotFoundError):
                # a file that is skipped here would count as deleted
                raise cannot_list(self._where, entry.path, error) from error
            if (is_link or too_long) and self._selection.wants(path):
                files.append((path, MISSING))
            return
        if stat.S_ISDIR(status.st_mode):
            self._add_folder(path, (status.st_dev, status.st_ino), inodes, folders)
        elif self._selection.wants(path):
            if stat.S_ISREG(status.st_mode):
                files.append((path, local_token(status)))
            else:
                self._omissions.add_special()
        elif is_hidden(path):
            self._omissions.add_hidden(path)

    def _add_forbidden(self, link: str, path: str, files: list[FoundFile]) -> None:
        """Appends a link that leads out of the root."""
        if not os.path.isdir(link):
            if self._selection.wants(path):
                files.append((path, FORBIDDEN))
        elif self._selection.enters(path) and not self._selection.exclude.match(path):
            self._refused_folders.append(f"{id_of(path)}/")
            files.append((path, FORBIDDEN))

    def _add_folder(self, path: str, inode: _Inode, inodes: frozenset[_Inode], folders: list[_Folder]) -> None:
        """Appends a folder that can hold samples, unless it contains itself by a link."""
        if inode in inodes:
            return
        if self._selection.enters(path):
            self._entered.add(inode)
            self._visits += 1
            if self._visits > _FREE_VISITS + _MAX_VISITS_PER_FOLDER * len(self._entered):
                raise ConfigError(
                    self._where,
                    f"links lead to {len(self._entered)} folders in over {self._visits - 1} ways",
                    "exclude the links",
                )
            folders.append((f"{path}/", inodes | {inode}))
        elif is_hidden(path):
            self._omissions.add_hidden(path, is_folder=True)

    def _is_inside(self, path: str) -> bool:
        """Returns whether the real path of ``path`` is the root or lies in it."""
        real = os.path.realpath(path)
        return real == self._real_root or real.startswith(self._real_root.rstrip("/") + "/")
