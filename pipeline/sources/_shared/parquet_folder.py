"""A folder of Parquet files as one manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.escaping import escaped
from pipeline.core.redaction import without_secrets
from pipeline.sources._shared.checked_file import CheckedFile
from pipeline.sources._shared.parquet_table import ParquetTable, _Budget
from pipeline.sources._shared.sample_ids import id_of
from pipeline.sources._shared.table_reader import Limits, Slice, has_list_view, plain, stored_type
from pipeline.storage.retry import retried
from pipeline.storage.roots import AllowedRoots

_EXTENSIONS = (".parquet", ".pq")
"""Of the files of a folder, in any case."""


def open_folder(url: str, wanted: set[str], where: str, limits: Limits) -> ParquetFolder:
    """The Parquet files of a folder as one table.

    Args:
        wanted: columns that will be read: each file must have them, in types of which one holds all values.

    Raises:
        ConfigError: no file; one that cannot be read, lacks a column or has it in another type; a link that leads out.
    """
    url = os.path.abspath(storage.split(url)[1]) if storage.is_local(url) else url.rstrip("/")
    folder = ParquetFolder(url, where, limits, _files(url, where))
    folder.check(wanted)
    return folder


@dataclass
class ParquetFolder:
    """The rows of all files of a folder, file by file."""

    url: str
    """Without a slash at the end."""
    where: str
    limits: Limits
    files: list[str]
    """Paths relative to the folder, in order."""
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    stored_bytes: int = 0

    def check(self, wanted: set[str]) -> None:
        """Looks at the footer of each file. Raises ``ConfigError``."""
        known: list[str] = []
        for number, path in enumerate(self.files):
            with closing(self._open(path)) as checked:
                found = self._table(checked, path).schema
                self.stored_bytes += checked.size
            if number == 0:
                self.schema = pa.schema([one.with_type(stored_type(plain(one.type))) for one in found])
                known = sorted(name for name in wanted if found.names.count(name) == 1)
            else:
                self._add(found, known, path)

    def _add(self, found: pa.Schema, names: list[str], path: str) -> None:
        """Makes the types of ``schema`` such that they also hold the values of another file."""
        for name in names:
            if found.names.count(name) != 1:
                why = f"no column {name!r}" if name not in found.names else f"two columns {name!r}"
                raise self._unlike(f"{why} in {path!r} of {self.url!r}, which {self.files[0]!r} has")
            at = self.schema.get_field_index(name)
            before, kind = self.schema.field(at).type, stored_type(plain(found.field(name).type))
            if before == kind:
                continue
            try:
                if has_list_view(before) or has_list_view(kind):
                    raise pa.ArrowNotImplementedError("views of lists are not cast")
                schemas = [pa.schema([("x", one)]) for one in (before, kind)]
                joined = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
                for one in (before, kind):
                    pa.array([], one).cast(joined)
            except (pa.ArrowException, NotImplementedError) as error:
                raise self._unlike(
                    f"column {name!r} of {path!r} in {self.url!r} holds {kind}, and {before} in the files before it"
                ) from error
            self.schema = self.schema.set(at, self.schema.field(at).with_type(joined))

    def _unlike(self, found: str) -> ConfigError:
        return ConfigError(self.where, found, "the same columns in all files, in types that fit each other")

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """A key of folders such as ``day=1``, which is no column."""
        for path in self.files:
            for name in path.split("/")[:-1]:
                if name.startswith(f"{column}="):
                    return (
                        f"no column {column!r} in the files of the manifest: it is a key of folders ({name!r}), "
                        "whose values are not read",
                        "write it into the files as a column too",
                    )
        return None

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """The columns, at most ``rows`` rows a slice. Raises ``ConfigError``."""
        budget = _Budget(self.url, self.stored_bytes, self.where, self.limits)
        for path in self.files:
            with closing(self._open(path)) as checked:
                table = self._table(checked, path)
                for name in columns:
                    if table.file.schema_arrow.names.count(name) != 1:
                        raise self._unlike(f"no column {name!r} in {path!r} of {self.url!r} any more")
                yield from table.within(budget, columns, rows, self.schema)

    def _open(self, path: str) -> CheckedFile:
        local = storage.is_local(self.url)
        url = storage.local_uri(os.path.join(self.url, path)) if local else storage.join(self.url, path)
        try:
            return CheckedFile(storage.Blob(url, AllowedRoots((self.url,), key=self.where)).open())
        except Exception as error:  # any backend may raise anything here
            raise self._unreadable(path, error) from error

    def _table(self, checked: CheckedFile, path: str) -> ParquetTable:
        try:
            file = parquet.open_parquet(checked)
        except Exception as error:  # Arrow may raise anything here
            raise self._unreadable(path, error) from error
        shown = storage.join(self.url, path)
        return ParquetTable(
            checked, file, shown, self.where, self.limits, suffix=f" of {escaped(without_secrets(id_of(path)))}"
        )

    def _unreadable(self, path: str, error: Exception) -> ConfigError:
        return ConfigError(
            self.where, f"cannot read {path!r} of {self.url!r} as parquet ({describe(error)})", "mend or replace it"
        )


def _files(url: str, where: str) -> list[str]:
    """The Parquet files in a folder and in the folders in it, relative to it, in order. Names that begin with ``_`` or
    ``.`` are left out.

    Raises:
        ConfigError: none; too many; a link to a folder outside; it cannot be listed.
    """
    fs, path = storage.split(url)
    found: list[str] = []
    others = 0
    try:
        for name in _listed(fs, path.rstrip("/") or "/", where):
            if name.lower().endswith(_EXTENSIONS):
                found.append(name)
            else:
                others += 1
            if len(found) > parquet.MAX_LIST:
                raise ConfigError(where, f"{url!r} has too many files", f"at most {parquet.MAX_LIST}")
    except ConfigError:
        raise
    except Exception as error:  # any backend may raise anything here
        raise ConfigError(where, f"cannot list {url!r} ({describe(error)})", "make it readable") from error
    if not found:
        more = f", but {others} of other names" if others else ""
        raise ConfigError(
            where, f"the folder {url!r} holds no Parquet file{more}", "a table, or a folder with files named *.parquet"
        )
    return sorted(found)


def _listed(fs: Any, root: str, where: str) -> Iterator[str]:
    return _local(root, where) if isinstance(fs, LocalFileSystem) else _remote(fs, root, where)


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _local(root: str, where: str) -> Iterator[str]:
    """Paths of what is no folder. Links to files are listed: a file is checked by where it lies when it is opened."""
    real_root, todo = os.path.realpath(root), [""]
    status = os.stat(root)
    entered = {(status.st_dev, status.st_ino)}
    while todo:
        prefix = todo.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                path = prefix + entry.name
                if _is_hidden(entry.name):
                    continue
                if not entry.is_dir():
                    yield path
                    continue
                if entry.is_symlink() and not f"{os.path.realpath(entry.path)}/".startswith(f"{real_root}/"):
                    raise ConfigError(where, f"{entry.path!r} is a link that leads out of the manifest", "a folder")
                status = entry.stat()
                if (status.st_dev, status.st_ino) not in entered:  # else links could lead round and round
                    entered.add((status.st_dev, status.st_ino))
                    todo.append(f"{path}/")


def _remote(fs: Any, root: str, where: str) -> Iterator[str]:
    """The same on another file system, folder by folder: fsspec's own walk passes over folders that it cannot list."""
    todo = [root]
    while todo:
        folder = todo.pop()
        entries = retried(partial(fs.ls, folder, detail=True, refresh=True))
        fs.invalidate_cache(folder)
        for entry in entries:
            name = str(entry["name"])
            path, is_folder = name.removeprefix(root).removeprefix("/"), entry["type"] == "directory"
            if is_folder and name.startswith(f"{folder}/") and name.rstrip("/") == folder:
                raise ConfigError(where, f"a key below {folder!r} has an empty name in its path", "rename it")
            if not path.rstrip("/") or _is_hidden(path.rstrip("/").rpartition("/")[2]):
                continue
            if is_folder:
                todo.append(name.rstrip("/"))
            elif not path.endswith("/"):
                yield path
