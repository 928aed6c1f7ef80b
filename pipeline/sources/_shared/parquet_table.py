"""Reads manifests of Parquet: a file, or a folder of files as Spark and others write it."""

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
from pipeline.sources._shared.checked_file import CheckedFile
from pipeline.sources._shared.table_reader import (
    MAX_PAGE_BYTES,
    TOTAL_BYTES,
    Limits,
    Slice,
    lengths,
    stored_field,
    too_large,
    width,
)

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
