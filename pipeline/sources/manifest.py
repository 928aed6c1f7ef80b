"""The manifest source: a table of samples in Parquet, CSV, TSV or JSON lines, with one column per modality.

A row that names no sample (no id, a URI that is not allowed, a broken line) does not stop the run: it is listed with
the reason, and becomes a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FIXED, LISTING
from pipeline.sources._manifest.config import Columns, Config
from pipeline.sources._manifest.listing import RowListing, place_of
from pipeline.sources._manifest.uris import UriResolver, manifest_path
from pipeline.sources._shared.refused_roots import RefusedTally, check_roots
from pipeline.sources._shared.sample_ids import LISTING_ROWS
from pipeline.sources._tables.column_types import check_storable, is_string, plain
from pipeline.sources._tables.opening import open_manifest
from pipeline.sources._tables.table_reader import Limits, TableReader
from pipeline.sources._tables.text_table import normalized
from pipeline.storage.roots import AllowedRoots

__all__ = ["Columns", "Config", "ManifestSource"]

_Names = list[str]


class ManifestSource:
    """Lists the rows of a manifest. Accesses the files of samples only for ``version: stat``, and never opens them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.where = "source"
        self.refused_folders: list[str] = []
        self.left_out: dict[str, int] = {}
        self._uris = UriResolver(config)

    def check(self, where: str) -> None:
        """Checks the manifest's columns against the config.

        Raises:
            ConfigError: unreachable, unreadable, columns missing or of a wrong type, names that clash.
        """
        self.where = where
        check_roots(self.allowed_roots(), f"{where}.roots")
        storage.check_readable(self.config.path, f"{where}.path")
        schema = self._manifest.schema
        for key, name in self.config.used_columns():
            if name not in schema.names:
                raise self._missing_column(f"{where}.{key}", name)
            if schema.names.count(name) > 1:
                raise ConfigError(f"{where}.{key}", f"two columns have the name {name!r}", "rename one of them")
        for key, name in self.config.columns.strings().items():
            kind = plain(schema.field(name).type)
            if not (is_string(kind) or pa.types.is_null(kind) or (key == "id" and pa.types.is_integer(kind))):
                raise ConfigError(f"{where}.columns.{key}", f"column {name!r} holds {kind}", "a column of strings")
        for name in self.config.passthrough:
            if name in {*FIXED.names, *LISTING.names}:
                raise ConfigError(
                    f"{where}.passthrough", f"column {name!r} is the dataset's own", "rename it in the manifest"
                )
            if self.config.passthrough.count(name) > 1:
                raise ConfigError(f"{where}.passthrough", f"names {name!r} twice", "each column once")
            check_storable(plain(schema.field(name).type), name, f"{where}.passthrough")

    def passthrough(self) -> pa.Schema:
        """Returns the passthrough columns with the manifest's types; dictionaries with the type of their values."""
        schema = self._manifest.schema
        return pa.schema([pa.field(name, plain(schema.field(name).type)) for name in self.config.passthrough])

    def allowed_roots(self) -> AllowedRoots:
        """Returns the root and ``roots``."""
        return self._uris.allowed

    def lists(self, url: str) -> bool:
        """Returns False: a new file is not a sample until a row of the manifest names it."""
        return False

    def list(self) -> Iterator[pa.Table]:
        """Yields tables of schema ``LISTING`` + ``passthrough()``, at most ``LISTING_ROWS`` rows each.

        Raises:
            ConfigError: no row; no row that names a sample whose files lie in the roots.
        """
        passthrough, tally = self.passthrough(), RefusedTally()
        listing = self._listing()
        for part in self._manifest.read(self._column_names(), LISTING_ROWS):
            rows = listing.rows(part, tally)
            tally.rows += len(rows)
            table = listing.table(rows, tally)
            order = pc.sort_indices(table["sample_id"])
            yield self._with_passthrough(table.take(order), order, part.table, passthrough)
        self._check_tally(tally)

    def duplicate_id_error(self, sample_id: str) -> ConfigError:
        """Returns the error for an id that is listed twice. Reads the manifest again to find both places."""
        found: list[str] = []
        listing = self._listing()
        for part in self._manifest.read(self._column_names(), LISTING_ROWS):
            rows = listing.rows(part, RefusedTally())
            found += [place_of(part, i) for i, row in enumerate(rows) if row["sample_id"] == sample_id]
            if len(found) > 1:
                break
        where = f"{self.where}.{'columns.id' if self.config.columns.id else 'columns'}"
        return ConfigError(where, f"id {sample_id!r} is in {' and in '.join(found[:2])}", "ids must differ")

    def _missing_column(self, where: str, name: str) -> ConfigError:
        explained = self._manifest.explain_missing(name)
        if explained is not None:
            return ConfigError(where, *explained)
        names = self._manifest.schema.names
        some = ", ".join(map(repr, names[:50])) + (", …" if len(names) > 50 else "")
        meant = next((f" (did you mean {one!r}?)" for one in names if normalized(one) == normalized(name)), "")
        return ConfigError(where, f"no column {name!r} in the manifest{meant}", f"one of: {some}")

    def _check_tally(self, tally: RefusedTally) -> None:
        """Raises ``ConfigError`` if no row of the listing can be used."""
        if not tally.rows:
            raise ConfigError(f"{self.where}.path", f"no row in {self.config.path!r}", "give a manifest with rows")
        if tally.first_bad is not None and tally.bad == tally.rows:
            key, reason = tally.first_bad
            raise ConfigError(
                f"{self.where}.{key}",
                f"none of {tally.rows} rows names a sample: {reason}",
                "mend the manifest",
            )
        if tally.refused and tally.refused + tally.bad == tally.rows:
            rest = f" ({tally.bad} more name no sample)" if tally.bad else ""
            raise ConfigError(
                f"{self.where}.roots",
                f"all {tally.refused} rows{rest} name files outside of {self._uris.root[0]!r}",
                f"where they are meant to be read: roots: [{tally.common_root or 'FOLDER'!r}]",
            )

    def _with_passthrough(
        self, listing: pa.Table, order: pa.Array, table: pa.Table, passthrough: pa.Schema
    ) -> pa.Table:
        """Returns ``listing`` with the passthrough columns, which are null in rows that name no sample.

        Args:
            order: for each row of ``listing``, the number of its row in ``table``.
            table: the rows of the manifest.
        """
        if listing["refused"].null_count < len(listing):
            order = pa.array(order.to_numpy(), mask=listing["refused"].is_valid().to_numpy())
        try:
            copied = table.select(passthrough.names).combine_chunks().cast(passthrough)
        except pa.ArrowException as error:
            raise ConfigError(
                f"{self.where}.passthrough", f"a column cannot be read ({describe(error)})", "mend the manifest"
            ) from error
        columns = [*listing.columns, *copied.take(order).columns]
        return pa.Table.from_arrays(columns, schema=pa.schema([*LISTING, *passthrough]))

    def _listing(self) -> RowListing:
        return RowListing(self.config, self._uris, self.where)

    def _column_names(self) -> _Names:
        return [name for _, name in self.config.used_columns()]

    @cached_property
    def _manifest(self) -> TableReader:
        return open_manifest(
            manifest_path(self.config),
            self.config.format,
            strings={*self.config.columns.strings().values(), *self.config.passthrough},
            wanted={*self._column_names()},
            where=f"{self.where}.path",
            limits=Limits(self.config.max_cell_bytes, self.config.max_bytes),
            separator=self.config.separator,
        )
