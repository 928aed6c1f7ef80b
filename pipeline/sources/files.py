"""A folder or a glob of files, on any fsspec URL. One file, or one group of files of a stem, is a sample."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline import storage
from pipeline.core.errors import ConfigError, NotAllowed, describe
from pipeline.core.schema import LISTING
from pipeline.sources._shared.patterns import MAGIC, Patterns
from pipeline.sources._shared.refused_roots import RefusedTally, check_roots
from pipeline.sources._shared.sample_ids import (
    LISTING_ROWS,
    SCHEMES,
    content_token,
    id_of,
    local_token,
    remote_token,
    role_of,
    scheme_of,
    version_of,
)
from pipeline.storage.retry import retried
from pipeline.storage.roots import AllowedRoots

SIDECARS = ("**/.*", "**/.*/**", "**/manifest.*", "**/README*", "**/LICENSE*", "**/*_ATTRIBUTION*")

_Found = tuple[str, str]
"""A file: its path relative to the root, and its token."""
_Files = list[_Found]
_Row = dict[str, str | bool | None]
"""A sample, as values of ``LISTING``."""
_FREE_WAYS, _MAX_WAYS = 10_000, 64
"""Folders are listed so often, and so often each, by links: links to folders of links would make ways without end."""
_FORBIDDEN = "forbidden"
"""The token of a link that leads out of the folder."""
_KEY_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
"""Protocols whose paths are keys: there ``.`` and ``..`` are names like others, not this folder and the one above."""


class _Place(NamedTuple):
    root: str
    """The folder to walk: an absolute path, or a URL."""
    glob: Patterns | None
    """What files must match, below the root."""
    only: str | None
    """The name of the one file, if the path names a file."""


class Config(BaseModel):
    """``sample_id`` is the path relative to the root: the folder, or the part of a glob before its first wildcard.

    Globs: ``*`` and ``?`` within a name, ``**`` over any number of folders, ``[...]``, ``{a,b}``. They are relative
    to the root: ``*.bak`` is the root's own, ``**/*.bak`` anybody's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["files"] = "files"
    path: str = Field(min_length=1)
    """A folder, a glob or one file, local or any fsspec URL."""
    include: tuple[str, ...] = ()
    """Globs; a file must match one of them. Empty: all files."""
    exclude: tuple[str, ...] = SIDECARS
    """Globs of what is no sample."""
    version: Literal["mtime", "sha256"] = "mtime"
    """How a changed file is detected: by size and modification time (etag or version id where there is one), or by
    content (not for files of over 16 GiB)."""
    schemes: tuple[str, ...] = SCHEMES
    """Schemes that ``path`` may have; a plain path is ``file``."""
    follow_symlinks: bool = False
    """True: also follow links that lead out of the folder. False: what they lead to is a failure (``forbidden``)."""

    @field_validator("include", "exclude")
    @classmethod
    def _readable(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        Patterns(globs)
        return globs

    @model_validator(mode="after")
    def _of_an_allowed_scheme(self) -> Config:
        if (scheme_of(self.path) or "file") not in self.schemes:
            raise NotAllowed(f"found {self.path!r}", f"schemes that are allowed: {', '.join(self.schemes)}", "path")
        return self


class FilesSource:
    """Lists folder by folder; no file is opened (but for ``version: sha256``)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.where = "source"
        self.refused_folders: list[str] = []
        self.left_out: dict[str, int] = {}

    def check(self, where: str) -> None:
        """Raises ``ConfigError``: unreachable, no file there, a glob that cannot be read."""
        self.where = where
        check_roots(self.allowed_roots(), f"{where}.path")
        storage.check_readable(self._place.root, f"{where}.path")
        if next(self._folders(), None) is None:
            raise self._nothing()

    def passthrough(self) -> pa.Schema:
        return pa.schema([])

    def allowed_roots(self) -> AllowedRoots:
        """The folder; with ``follow_symlinks`` whatever links in it lead to."""
        key = f"{self.where}.follow_symlinks"
        return AllowedRoots((self._place.root,), self.config.follow_symlinks, key, anchored=False)

    def lists(self, url: str) -> bool:
        """True if a file at ``url`` would be a sample."""
        fs, path = storage.split(url)
        root_fs, root = storage.split(self._place.root)
        path, root = (os.path.abspath(one) if isinstance(fs, LocalFileSystem) else one for one in (path, root))
        if type(fs) is not type(root_fs) or not path.startswith(root.rstrip("/") + "/"):
            return False
        below = path[len(root.rstrip("/")) + 1 :]
        steps = below.split("/")
        return self._wanted(below) and all(self._enter("/".join(steps[:i])) for i in range(1, len(steps)))

    def list(self) -> Iterator[pa.Table]:
        """Tables of schema ``LISTING``, at most ``LISTING_ROWS`` rows each, ordered by sample_id within each."""
        rows: list[_Row] = []
        tally = RefusedTally()
        self.refused_folders.clear()
        self.left_out.clear()
        odd: dict[str, str] = {}
        for files in self._folders():
            samples = list(self._samples(files, odd))
            tally.rows += len(samples)
            tally.refused += sum("forbidden" in sample for sample in samples)
            rows.extend(samples)
            while len(rows) >= LISTING_ROWS:
                yield _table(rows[:LISTING_ROWS])
                rows = rows[LISTING_ROWS:]
        if not tally.rows:
            raise self._nothing()
        if tally.refused == tally.rows:
            raise ConfigError(
                f"{self.where}.follow_symlinks",
                f"all {tally.rows} samples of {self.config.path!r} are links that lead out of it",
                "where they are meant to be read: follow_symlinks: true",
            )
        if rows:
            yield _table(rows)

    def twice(self, sample_id: str) -> ConfigError:
        """Of a folder that changes while it is listed; else every path has an id of its own."""
        return ConfigError(f"{self.where}.path", f"two files have the sample_id {sample_id!r}", "list it again")

    # -- samples ---------------------------------------------------------------------------------

    def _samples(self, files: _Files, odd: dict[str, str]) -> Iterator[_Row]:
        """Yields the samples of one folder. Files of one stem are one sample if no two of them have the same role.

        What is refused is a sample by itself, so that it changes none of the others.

        ``odd`` keeps, over all folders, the ids that may stand for two paths: those with an escape in them.
        """
        refused = [one for one in files if one[1] == _FORBIDDEN]
        allowed = [one for one in files if one[1] != _FORBIDDEN] if refused else files
        paths = {path for path, _ in allowed}
        stems: dict[str, _Files] = {}
        for path, token in allowed:
            stems.setdefault(os.path.splitext(path)[0] if role_of(path) != "other" else path, []).append((path, token))
        ids: dict[str, str] = {}
        for stem, members in stems.items():
            roles = {role_of(path) for path, _ in members}
            together = 1 < len(members) == len(roles) and stem not in paths
            for name, group in [(stem, members)] if together else [(one[0], [one]) for one in members]:
                sample_id = id_of(name)
                known = odd if "%" in sample_id else ids
                if known.setdefault(sample_id, name) != name:
                    both = f"{os.fsencode(known[sample_id])!r} and {os.fsencode(name)!r}"
                    raise ConfigError(
                        f"{self.where}.path", f"{both} have the same sample_id {sample_id!r}", "rename one of them"
                    )
                yield self._sample(sample_id, group)
        yield from (self._sample(id_of(one[0]), [one]) for one in refused if id_of(one[0]) not in ids)

    def _sample(self, sample_id: str, files: _Files) -> _Row:
        named = [(role_of(path), path, self._uri(path), token) for path, token in files]
        if self.config.version == "sha256":
            named = [(role, path, uri, self._content(uri, token)) for role, path, uri, token in named]
        refused = {"forbidden": True} if any(token == _FORBIDDEN for *_, token in named) else {}
        return {
            "sample_id": sample_id,
            "source_version": version_of([(role, id_of(path), token) for role, path, _, token in named], None, {}),
            **{f"{role}_uri": uri for role, _, uri, _ in named},
            **refused,
        }

    def _content(self, uri: str, token: str) -> str:
        if token == _FORBIDDEN:
            return token
        try:
            return content_token(storage.Blob(uri, self.allowed_roots()), token)
        except Exception as error:  # any backend may raise anything here
            raise ConfigError(
                f"{self.where}.version", f"cannot read {uri!r} ({describe(error)})", "run again, or give version: mtime"
            ) from error

    def _uri(self, path: str) -> str:
        root = self._place.root
        return storage.local_uri(os.path.join(root, path)) if self._is_local else storage.join(root, path)

    # -- listing ---------------------------------------------------------------------------------

    @cached_property
    def _place(self) -> _Place:
        try:
            return _place(self.config.path)
        except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
            raise ConfigError(
                f"{self.where}.path",
                f"cannot reach {self.config.path!r} ({describe(error)})",
                "give a folder, a file or a glob that can be read",
            ) from error

    @cached_property
    def _is_local(self) -> bool:
        return storage.is_local(self._place.root)

    @cached_property
    def _filters(self) -> tuple[Patterns, ...]:
        """What a path must match, all of them."""
        include = Patterns(self.config.include) if self.config.include else None
        return tuple(patterns for patterns in (self._place.glob, include) if patterns is not None)

    @cached_property
    def _exclude(self) -> Patterns:
        return Patterns(self.config.exclude)

    def _wanted(self, path: str) -> bool:
        if self._place.only is not None:
            return path == self._place.only
        return all(filter_.match(path) for filter_ in self._filters) and not self._exclude.match(path)

    def _enter(self, folder: str) -> bool:
        if self._place.only is not None or self._exclude.cover(folder):
            return False
        return all(filter_.may_reach(folder) for filter_ in self._filters)

    def _folders(self) -> Iterator[_Files]:
        """The wanted files of each folder that has some."""
        fs, path = storage.split(self._place.root)
        walk = self._local(path) if isinstance(fs, LocalFileSystem) else self._remote(fs, path.rstrip("/"))
        yield from (files for files in walk if files)

    def _local(self, root: str) -> Iterator[_Files]:
        real_root = os.path.realpath(root)
        status = os.stat(root)
        todo = [("", frozenset([(status.st_dev, status.st_ino)]))]
        entered: set[tuple[int, int]] = set()
        visits = 0
        while todo:
            prefix, above = todo.pop()
            files: _Files = []
            folders = []
            try:
                with os.scandir(os.path.join(root, prefix)) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise self._unlistable(os.path.join(root, prefix), error) from error
                yield [(prefix.rstrip("/"), "missing")]  # its path is too long; reported as a failure
                continue
            for entry in entries:
                path, is_link = prefix + entry.name, entry.is_symlink()
                if is_link and not self.config.follow_symlinks and not _inside(entry.path, real_root):
                    if not os.path.isdir(entry.path):
                        files.extend([(path, _FORBIDDEN)] if self._wanted(path) else [])
                    elif self._enter(path) and not self._exclude.match(path):
                        self.refused_folders.append(f"{id_of(path)}/")
                        files.append((path, _FORBIDDEN))
                    continue
                try:
                    status = os.stat(entry.path)
                except OSError as error:
                    too_long = error.errno == errno.ENAMETOOLONG
                    if not is_link and not too_long and not isinstance(error, FileNotFoundError):
                        # passed over, it would be "deleted"
                        raise self._unlistable(entry.path, error) from error
                    if (is_link or too_long) and self._wanted(path):  # reported as a failure
                        files.append((path, "missing"))
                    continue
                own = (status.st_dev, status.st_ino)
                if stat.S_ISDIR(status.st_mode):
                    if own not in above and self._enter(path):
                        entered.add(own)
                        visits += 1
                        if visits > _FREE_WAYS + _MAX_WAYS * len(entered):
                            raise self._too_many_ways(visits, len(entered))
                        folders.append((f"{path}/", above | {own}))
                    elif own not in above and _is_hidden(path):
                        self._count_hidden(path, is_folder=True)
                elif self._wanted(path):
                    if stat.S_ISREG(status.st_mode):
                        files.append((path, local_token(status)))
                    else:
                        self._leave_out("that are pipes, sockets or devices")
                elif _is_hidden(path):
                    self._count_hidden(path)
            yield files
            todo.extend(reversed(folders))

    def _remote(self, fs: Any, root: str) -> Iterator[_Files]:
        todo = [root]
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        has_keys = not protocols.isdisjoint(_KEY_STORES)
        while todo:
            folder = todo.pop()
            try:
                entries = retried(partial(fs.ls, folder, detail=True, refresh=True))
            except Exception as error:  # any backend may raise anything here
                raise self._unlistable(folder, error) from error
            fs.invalidate_cache(folder)  # a listing is read once: nothing of it stays in memory
            files: _Files = []
            folders = []
            for entry in sorted(entries, key=lambda entry: str(entry["name"])):
                name = str(entry["name"])
                path = name.removeprefix(root).removeprefix("/")
                if entry["type"] == "directory":
                    if name.rstrip("/") == folder:  # keys such as "a//b": their folder has no name to list it by
                        nameless = name.startswith(f"{folder}/")
                        files.extend(self._nameless(fs, root, folder) if nameless else [])
                    elif self._enter(path.rstrip("/")) or (has_keys and self._enter_to_count(path.rstrip("/"))):
                        folders.append(name.rstrip("/"))
                    elif _is_hidden(path):
                        self._count_hidden(path.rstrip("/"), is_folder=True)
                elif path and not path.endswith("/") and self._wanted(path):
                    files.append((path, remote_token(entry)))
                elif _is_hidden(path):
                    self._count_hidden(path)
                else:
                    self._count_odd(path, entry)
            yield files
            todo.extend(reversed(folders))

    def _nameless(self, fs: Any, root: str, folder: str) -> Iterator[_Found]:
        """Files below a folder whose name is empty."""
        for name, entry in retried(partial(fs.find, folder, detail=True)).items():
            path = name.removeprefix(root).removeprefix("/")
            if not name.startswith(f"{folder}//"):
                continue
            if not name.endswith("/") and self._wanted(path):
                yield path, remote_token(entry)
            else:
                self._count_odd(path, entry)

    def _enter_to_count(self, folder: str) -> bool:
        """True for a folder of a key store with an odd name in its path, if without it files in it could be samples."""
        if self._place.only is not None or not _is_odd(folder):
            return False
        plain = _without_odd_names(folder)
        return not plain or self._enter(plain)

    def _count_odd(self, path: str, entry: dict[str, Any]) -> None:
        """Counts a key that is no sample, if it is only the odd names in its path that make it none."""
        plain = _without_odd_names(path)
        if not path or self._place.only is not None or not _is_odd(path):
            return
        if self._wanted(plain) if plain else not self._filters:
            self._leave_out(_odd_part(path, entry.get("size")))

    def _count_hidden(self, path: str, is_folder: bool = False) -> None:
        """Counts a hidden file, or a hidden folder as one, that only the default of ``exclude`` leaves out."""
        if self._place.only is not None or self.config.exclude != SIDECARS:
            return
        if all(filter_.may_reach(path) if is_folder else filter_.match(path) for filter_ in self._filters):
            self._leave_out("whose name, or their folder's, begins with a dot")

    def _leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def _too_many_ways(self, ways: int, folders: int) -> ConfigError:
        return ConfigError(
            f"{self.where}.path", f"links lead to {folders} folders in over {ways - 1} ways", "exclude the links"
        )

    def _unlistable(self, folder: str, error: Exception) -> ConfigError:
        return ConfigError(f"{self.where}.path", f"cannot list {folder!r} ({describe(error)})", "make it readable")

    def _nothing(self) -> ConfigError:
        return ConfigError(
            f"{self.where}.path",
            f"no file in {self.config.path!r} that is a sample",
            "give a folder or a glob with files; see source.include and source.exclude",
        )


def _place(url: str) -> _Place:
    """Where to walk, and for what. Raises whatever the file system does, and ``ValueError`` for a broken glob."""
    fs, path = storage.split(url)
    local = isinstance(fs, LocalFileSystem)
    wildcard = MAGIC.search(url)
    if wildcard is None or fs.exists(path):  # a folder may have a name that looks like a glob
        root = os.path.abspath(path) if local else url.rstrip("/")
        if not fs.isfile(path):
            return _Place(root, None, None)
        folder, _, name = root.rpartition("/")
        return _Place(folder or "/", None, name)
    body = url.find("://") + 3 if "://" in url else 0
    cut = max(url.rfind("/", body, wildcard.start()) + 1, body)
    folder = url[:cut] or "."
    root = os.path.abspath(storage.split(folder)[1]) if local else folder.rstrip("/")
    return _Place(root, Patterns([url[cut:]]), None)


def _is_odd(path: str) -> bool:
    """True for a key with an empty name, ``.`` or ``..`` in it."""
    return not {"", ".", ".."}.isdisjoint(path.split("/"))


def _without_odd_names(path: str) -> str:
    return "/".join(name for name in path.split("/") if name not in ("", ".", ".."))


def _odd_part(path: str, size: int | None) -> str:
    """What is odd in ``path``, as the end of a sentence about files."""
    names = path.split("/")
    if names[-1] == "":
        return (
            "empty, with '/' at the end of their name (folder markers)"
            if size == 0
            else "with '/' at the end of their name"
        )
    for name in ("..", "."):
        if name in names:
            return f"with {name!r} in their path"
    return "with an empty name in their path"


def _table(rows: list[_Row]) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["sample_id"])), schema=LISTING)


def _inside(path: str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip("/") + "/")


def _is_hidden(path: str) -> bool:
    """True for a name that begins with a dot and is more than dots."""
    name = path.rstrip("/").rpartition("/")[2]
    return name.startswith(".") and name.strip(".") != ""
