"""Reads a folder of Parquet files as one table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline import parquet, storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.escaping import escaped
from pipeline.core.redaction import without_secrets
from pipeline.sources._shared.sample_ids import id_of
from pipeline.sources._tables.checked_file import CheckedFile
from pipeline.sources._tables.column_types import has_list_view, plain, stored_type
from pipeline.sources._tables.parquet_folder_files import parquet_files
from pipeline.sources._tables.parquet_table import ByteBudget, ParquetTable
from pipeline.sources._tables.table_reader import Limits, Slice
from pipeline.storage.roots import AllowedRoots


def open_folder(url: str, wanted: set[str], where: str, limits: Limits) -> ParquetFolder:
    """Opens the Parquet files of a folder as one table, and reads all their footers.

    Args:
        wanted: columns that will be read. Each file must have them, in types that one type can hold.
        where: dotted path of the manifest's path in the config, for errors.

    Raises:
        ConfigError: no file; a file cannot be read, lacks a column or has it in another type; a link leads out of the
            folder.
    """
    url = os.path.abspath(storage.split(url)[1]) if storage.is_local(url) else url.rstrip("/")
    folder = ParquetFolder(url, where, limits, parquet_files(url, where))
    folder.check(wanted)
    return folder


@dataclass
class ParquetFolder:
    """The rows of all files of a folder, one file after the other."""

    url: str
    """The folder, without a slash at the end."""
    where: str
    limits: Limits
    files: list[str]
    """Sorted paths relative to the folder."""
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    stored_bytes: int = 0

    def check(self, wanted: set[str]) -> None:
        """Reads the footer of each file, and sets ``schema`` and ``stored_bytes``. Raises ``ConfigError``."""
        known: list[str] = []
        for number, path in enumerate(self.files):
            with closing(self._open(path)) as checked:
                found = self._table(checked, path).schema
                self.stored_bytes += checked.size
            if number == 0:
                self.schema = pa.schema([one.with_type(stored_type(plain(one.type))) for one in found])
                known = sorted(name for name in wanted if found.names.count(name) == 1)
            else:
                self._widen_schema(found, known, path)

    def _widen_schema(self, found: pa.Schema, names: list[str], path: str) -> None:
        """Widens the types of ``schema`` so that they also hold the values of another file.

        Args:
            found: schema of that file.
            names: columns that are compared.
        """
        for name in names:
            if found.names.count(name) != 1:
                why = f"no column {name!r}" if name not in found.names else f"two columns {name!r}"
                raise self._mismatch(f"{why} in {path!r} of {self.url!r}, which {self.files[0]!r} has")
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
                raise self._mismatch(
                    f"column {name!r} of {path!r} in {self.url!r} holds {kind}, and {before} in the files before it"
                ) from error
            self.schema = self.schema.set(at, self.schema.field(at).with_type(joined))

    def _mismatch(self, found: str) -> ConfigError:
        return ConfigError(self.where, found, "the same columns in all files, in types that fit each other")

    def explain_missing(self, column: str) -> tuple[str, str] | None:
        """Explains a column that is a key of folder names such as ``day=1``, whose values are not read."""
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
        """Yields the columns in slices of at most ``rows`` rows. Raises ``ConfigError``."""
        budget = ByteBudget(self.url, self.stored_bytes, self.where, self.limits)
        for path in self.files:
            with closing(self._open(path)) as checked:
                table = self._table(checked, path)
                for name in columns:
                    if table.file.schema_arrow.names.count(name) != 1:
                        raise self._mismatch(f"no column {name!r} in {path!r} of {self.url!r} any more")
                yield from table.read_within(budget, columns, rows, self.schema)

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
