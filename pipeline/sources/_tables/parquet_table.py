"""Reads a manifest in Parquet, within limits on the memory that its values take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import parquet
from pipeline.core.errors import ConfigError, SampleError, describe
from pipeline.sources._tables.checked_file import CheckedFile
from pipeline.sources._tables.column_types import MAX_PAGE_BYTES, lengths, stored_field, width
from pipeline.sources._tables.table_reader import TOTAL_BYTES, Limits, Slice, too_large

_BATCH_BYTES = 64 << 20
"""Maximum size of a batch, unless one row is larger."""
_LIST_BYTES = 64
"""Size of a list in Python. A nested value is in one list per level."""
_RATIO = 64
"""Nested values of a column chunk may always take this many times their size in the file."""
_TOTAL_RATIO = 100
"""All values together may always take this many times the size of the file."""


class ByteBudget:
    """Bounds the bytes of all values of a manifest.

    Args:
        stored_bytes: size of the manifest's files.
    """

    def __init__(self, path: str, stored_bytes: int, where: str, limits: Limits) -> None:
        self.path, self.stored_bytes, self.where = path, stored_bytes, where
        self.left = self.total = limits.bytes or max(TOTAL_BYTES, _TOTAL_RATIO * stored_bytes)

    def take(self, count: int) -> None:
        """Counts bytes. Raises ``ConfigError`` once there are too many."""
        self.left -= count
        if self.left < 0:
            found = f"the values of {self.path!r} have more than {self.total} bytes, {self.stored_bytes} in the file"
            raise too_large(self.where, found, "max_bytes")


def open_file(file: Any, path: str, where: str, limits: Limits) -> ParquetTable:
    """Returns the table in an open file. Raises the errors of pyarrow."""
    checked = CheckedFile(file)
    return ParquetTable(checked, parquet.open_parquet(checked), path, where, limits)


@dataclass(frozen=True)
class ParquetTable:
    """The rows of one Parquet file.

    Args:
        checked: the file.
        file: the same file, opened by pyarrow.
        path: for errors.
        where: dotted path of the manifest's path in the config, for errors.
        suffix: text after the place of each row.
    """

    checked: CheckedFile
    file: pq.ParquetFile
    path: str
    where: str
    limits: Limits
    suffix: str = ""

    @property
    def schema(self) -> pa.Schema:
        """The file's schema; views have the types that they are stored as."""
        return pa.schema([stored_field(one) for one in self.file.schema_arrow])

    def explain_missing(self, column: str) -> None:
        """Returns None: a missing column of a single file has no further explanation."""

    def read(self, columns: list[str], rows: int) -> Iterator[Slice]:
        """Yields the columns in slices of at most ``rows`` rows. Raises ``ConfigError``."""
        yield from self.read_within(ByteBudget(self.path, self.checked.size, self.where, self.limits), columns, rows)

    def read_within(
        self, budget: ByteBudget, columns: list[str], rows: int, kinds: pa.Schema | None = None
    ) -> Iterator[Slice]:
        """Same as `read`, with a budget that several files share.

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
        """Yields batches of at most ``rows`` rows, one row group at a time: pyarrow 26 fails on a batch over several
        row groups if a column is a dictionary."""
        columns = [
            number
            for number in range(len(self.file.schema))
            if any(f"{self.file.schema.column(number).path}.".startswith(f"{name}.") for name in names)
        ]
        row_bytes = sum(width(self.file.schema_arrow.field(name).type) for name in names)
        for group in range(self.file.num_row_groups):
            if not self.file.metadata.row_group(group).num_rows:  # its columns may have no valid offset
                continue
            most = max(1, min(rows, _BATCH_BYTES // max(1, row_bytes + self._check_chunks(group, columns))))
            yield from self.file.iter_batches(most, row_groups=[group], columns=names, use_threads=False)

    def _check_chunks(self, group: int, columns: list[int]) -> int:
        """Checks the column chunks of a row group before they are decoded.

        Returns:
            Maximum bytes that a row takes of values which rows share: values of a dictionary, or prefixes.

        Raises:
            ConfigError: a page, a value or a chunk is too large.
        """
        shared, page_bytes = 0, self._page_bytes
        for number in columns:
            found = self.checked.load_chunk(self.file.metadata, group, number)
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
        """Returns the bytes of all values. Raises ``ConfigError`` for a value that is too long."""
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
        """Maximum size of a page: it holds many values, or one of the maximum length."""
        return max(MAX_PAGE_BYTES, 4 * self.limits.cell_bytes)

    def _too_large(self, found: str) -> ConfigError:
        return too_large(self.where, f"{found}, more than its limit", "max_cell_bytes")


def _place(first: int, suffix: str, i: int) -> str:
    return f"row {first + i}{suffix}"


def _cast(table: pa.Table, kinds: pa.Schema) -> pa.Table:
    """Returns ``table`` with the column types of ``kinds``. Raises ``pa.ArrowException``, which names the column."""
    for number, name in enumerate(table.column_names):
        kind = kinds.field(name).type
        if table.schema.field(number).type != kind:
            try:
                table = table.set_column(number, name, table[name].cast(kind))
            except pa.ArrowException as error:
                raise pa.ArrowInvalid(f"column {name!r} is no {kind}: {error}") from error
    return table
