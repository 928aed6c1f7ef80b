"""Reads manifests of Parquet: a file, or a folder of files as Spark and others write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.core.escaping import escaped
from pipeline.core.redaction import without_secrets
from pipeline.sources._checked import CheckedFile
from pipeline.sources._identity import id_of
from pipeline.sources._table_reader import (
    MAX_PAGE_BYTES,
    TOTAL_BYTES,
    Limits,
    Slice,
    has_list_view,
    lengths,
    plain,
    stored_field,
    stored_type,
    too_large,
    width,
)
from pipeline.storage.retry import retried
from pipeline.storage.roots import AllowedRoots

_EXTENSIONS = (".parquet", ".pq")
"""Of the files of a folder, in any case."""
_BATCH_BYTES = 64 << 20
"""What a batch may take, unless one row takes more."""
_LIST_BYTES = 64
"""Of a list in Python. A value may have one around it at each level."""
_RATIO = 64
"""Nested values may take so many times their bytes in the file, at least."""
_TOTAL_RATIO = 100
"""All values together may take so many times their bytes in the file."""


class _Budget:
    """How many bytes the values of a manifest may have, and have so far."""

    def __init__(self, path: str, stored_bytes: int, where: str, limits: Limits) -> None:
        self.path, self.stored_bytes, self.where = path, stored_bytes, where
        self.left = self.total = limits.bytes or max(TOTAL_BYTES, _TOTAL_RATIO * stored_bytes)

    def take(self, count: int) -> None:
        """Raises ``ConfigError`` once there are too many."""
        self.left -= count
        if self.left < 0:
            found = f"the values of {self.path!r} have more than {self.total} bytes, {self.stored_bytes} in the file"
            raise too_large(self.where, found, "max_bytes")


def open_file(file: Any, path: str, where: str, limits: Limits) -> ParquetTable:
    """The table in an open ``file``. Raises what pyarrow does."""
    checked = CheckedFile(file)
    return ParquetTable(checked, parquet.open_parquet(checked), path, where, limits)


@dataclass(frozen=True)
class ParquetTable:
    """The rows of one file.

    Args:
        suffix: of the places of its rows.
    """

    checked: CheckedFile
    file: pq.ParquetFile
    path: str
    where: str
    limits: Limits
    suffix: str = ""

    @property
    def schema(self) -> pa.Schema:
        """Views have the types that they are stored as."""
        return pa.schema([stored_field(one) for one in self.file.schema_arrow])

    def explain_missing(self, column: str) -> None:
        """None: a file has the columns that it has."""

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """The columns, at most ``rows`` rows a slice. Raises ``ConfigError``."""
        yield from self.within(_Budget(self.path, self.checked.size, self.where, self.limits), columns, rows)

    def within(self, budget: _Budget, columns: list[str], rows: int, kinds: pa.Schema | None = None) -> Iterator[Slice]:
        """The same, of several files within one budget.

        Args:
            kinds: types of the columns; None: those of the file.
        """
        names, done = list(dict.fromkeys(columns)), 0
        kinds = kinds or self.schema
        try:
            for batch in self._batches(rows, names):
                table = _cast(pa.Table.from_batches([batch]).select(names), kinds)
                budget.take(self._check(table, done))
                yield Slice(table, partial(_place, done + 1, self.suffix))
                done += len(batch)
        except (pa.ArrowException, OSError, ValueError, SampleError) as error:
            raise ConfigError(
                self.where, f"{self.path!r} breaks off after row {done} ({describe(error)})", "mend or replace it"
            ) from error

    def _batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Row group by row group: a batch over several breaks beside a dictionary column (pyarrow 26)."""
        columns = [
            number
            for number in range(len(self.file.schema))
            if any(f"{self.file.schema.column(number).path}.".startswith(f"{name}.") for name in names)
        ]
        row_bytes = sum(width(self.file.schema_arrow.field(name).type) for name in names)
        for group in range(self.file.num_row_groups):
            if not self.file.metadata.row_group(group).num_rows:  # its columns may have no place in the file
                continue
            most = max(1, min(rows, _BATCH_BYTES // max(1, row_bytes + self._look(group, columns))))
            yield from self.file.iter_batches(most, row_groups=[group], columns=names, use_threads=False)

    def _look(self, group: int, columns: list[int]) -> int:
        """Bytes that a row may take of what rows share: a value of a dictionary, or a prefix."""
        shared, page_bytes = 0, self._page_bytes
        for number in columns:
            found = self.checked.look(self.file.metadata, group, number)
            column, place = self.file.schema.column(number), f"in row group {group + 1} of {self.path!r}"
            if found.page_bytes > page_bytes:
                raise self._too_large(f"a page of {found.path!r} {place} takes {found.page_bytes} bytes")
            if max(found.value_bytes, column.length or 0) > page_bytes:
                raise self._too_large(
                    f"a value of {found.path!r} {place} takes {max(found.value_bytes, column.length or 0)} bytes"
                )
            one = max(found.value_bytes, column.length or 0, 8)
            most, lists = max(page_bytes, _RATIO * found.size), _LIST_BYTES * column.max_repetition_level * found.values
            takes = lists + found.values * one
            if column.max_repetition_level and lists < most < takes and column.physical_type == "BYTE_ARRAY":
                takes = lists + self.checked.string_bytes(self.file.metadata, group, number, most)
            if column.max_repetition_level and takes > most:
                raise self._too_large(f"{found.path!r} {place} may take {takes} bytes")
            shared += one
        return shared

    def _check(self, table: pa.Table, done: int) -> int:
        """Bytes of the values. Raises ``ConfigError`` for one that is too long."""
        total = 0
        for name, column in zip(table.column_names, table.columns, strict=True):
            for chunk in column.chunks:
                of_values = lengths(chunk)
                most = pc.max(of_values).as_py() or 0 if of_values is not None else 0
                if most > self.limits.cell_bytes:
                    place = f"from row {done + 1} on in {self.path!r}"
                    raise self._too_large(f"a value of {name!r} {place} has {most} bytes")
                total += chunk.nbytes if of_values is None else pc.sum(of_values).as_py() or 0
        return total

    @property
    def _page_bytes(self) -> int:
        """What a page may take: many values, or one that is as long as a value may be."""
        return max(MAX_PAGE_BYTES, 4 * self.limits.cell_bytes)

    def _too_large(self, found: str) -> ConfigError:
        return too_large(self.where, f"{found}, more than its limit", "max_cell_bytes")


def _place(first: int, suffix: str, i: int) -> str:
    return f"row {first + i}{suffix}"


def _cast(table: pa.Table, kinds: pa.Schema) -> pa.Table:
    """``table`` with its columns in the types of ``kinds``. Raises ``pa.ArrowException``, which names the column."""
    for number, name in enumerate(table.column_names):
        kind = kinds.field(name).type
        if table.schema.field(number).type != kind:
            try:
                table = table.set_column(number, name, table[name].cast(kind))
            except pa.ArrowException as error:
                raise pa.ArrowInvalid(f"column {name!r} is no {kind}: {error}") from error
    return table


# -- folders --------------------------------------------------------------------------------------


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
