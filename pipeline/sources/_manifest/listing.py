"""Makes the listing's rows from the rows of a manifest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from pipeline.core.errors import ConfigError, describe, one_line
from pipeline.core.redaction import is_url_with_secret
from pipeline.core.schema import LISTING
from pipeline.sources._manifest.config import Config
from pipeline.sources._manifest.uris import SECRET, InvalidRow, UriResolver, manifest_path
from pipeline.sources._shared.refused_roots import RefusedTally
from pipeline.sources._shared.sample_ids import id_of, stat_token, version_of
from pipeline.sources._tables.table_reader import Slice, values

Row = dict[str, Any]
"""Values of ``LISTING``."""


class RowListing:
    """Makes rows of ``LISTING`` from slices of a manifest.

    A row that names no sample gets the place in the manifest as its id and the reason in the column ``refused``.

    Args:
        where: dotted path of the source in the config.
    """

    def __init__(self, config: Config, uris: UriResolver, where: str) -> None:
        self.config, self.uris, self.where = config, uris, where
        self._roles = tuple(config.columns.uris().items())
        """(role, column)."""
        self._name = one_line(id_of(manifest_path(config).rpartition("/")[2]))
        """File name of the manifest, on one line."""

    def rows(self, part: Slice, tally: RefusedTally) -> list[Row]:
        """Returns one row for each row of ``part.table``, in its order, followed by the rows that could not be parsed.

        Args:
            tally: counts the rows that are refused.
        """
        columns: dict[str, list[Any]] = {}
        unreadable: dict[int, str] = {}
        for name in dict.fromkeys(name for _, name in self.config.used_columns()):
            columns[name], reasons = values(part.table, name, f"{self.where}.path")
            unreadable = {**reasons, **unreadable}
        rows: list[Row] = []
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            try:
                if unreadable and i in unreadable:
                    raise InvalidRow("path", unreadable[i])
                rows.append(self._sample(dict(zip(columns, row, strict=True)), tally))
            except InvalidRow as error:
                rows.append(self._refused(part.place(i), error.key, error.reason, tally))
        rows += [self._refused(place, "path", reason, tally) for place, reason in part.unparsed]
        return rows

    def table(self, rows: list[Row], tally: RefusedTally) -> pa.Table:
        """Returns ``rows`` as a table of schema ``LISTING``."""
        # columns that are null in every row are made without reading the rows
        used = {"sample_id", "source_version", *(f"{role}_uri" for role, _ in self._roles)}
        used |= {"inline_text"} if self.config.columns.inline_text else set()
        used |= {"forbidden"} if tally.refused else set()
        used |= {"refused"} if tally.bad else set()
        columns = [
            pa.array([row.get(field.name) for row in rows], field.type)
            if field.name in used
            else pa.nulls(len(rows), field.type)
            for field in LISTING
        ]
        return pa.Table.from_arrays(columns, schema=LISTING)

    def _refused(self, place: str, key: str, reason: str, tally: RefusedTally) -> Row:
        """Returns the listing's row for a row of the manifest that names no sample."""
        message = f"{place} of {self._name!r} {reason}"
        tally.add_bad(key, message)
        version = hashlib.sha256(json.dumps([place, reason]).encode()).hexdigest()
        return {"sample_id": f"{self._name}#{place}", "source_version": version, "refused": message}

    def _sample(self, values: dict[str, Any], tally: RefusedTally) -> Row:
        """Returns the listing's row of a sample.

        Args:
            values: column -> value.

        Raises:
            InvalidRow: the row names no sample.
        """
        columns = self.config.columns
        inline = values[columns.inline_text] if columns.inline_text else None
        sample: Row = {"inline_text": inline}
        tokens: list[tuple[str, str, str]] = []
        refused: list[str] = []
        for role, name in self._roles:
            if values[name] in (None, ""):
                continue
            relative, uri, allowed = self.uris.resolve(role, name, values[name])
            sample[f"{role}_uri"] = uri
            if allowed:
                tokens.append((role, relative, "" if self.config.version == "uri" else self._token(role, uri)))
            else:
                tokens.append((role, relative, ""))  # a forbidden file is not accessed
                refused.append(uri)
        sample_id = values[columns.id] if columns.id is not None else tokens[0][1] if tokens else None
        if sample_id in (None, ""):
            raise InvalidRow("columns", "has no id" if tokens or inline else "has no id and no file")
        sample["sample_id"] = str(sample_id)
        passthrough = {name: values[name] for name in self.config.passthrough}
        _check_secrets(sample["sample_id"], passthrough)
        sample["source_version"] = version_of(tokens, inline, passthrough)
        if refused:
            sample["forbidden"] = True
            tally.add(refused)
        return sample

    def _token(self, role: str, uri: str) -> str:
        try:
            return stat_token(uri)
        except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
            raise ConfigError(
                f"{self.where}.columns.{role}", f"cannot reach {uri!r} ({describe(error)})", "or give version: uri"
            ) from error


def _check_secrets(sample_id: str, passthrough: dict[str, Any]) -> None:
    """Raises ``InvalidRow`` for a value with a secret that would be written to the dataset."""
    if is_url_with_secret(sample_id):
        raise InvalidRow("columns", f"has an id that is {SECRET}")
    for name, value in passthrough.items():
        if isinstance(value, str) and is_url_with_secret(value):
            raise InvalidRow("passthrough", f"has {SECRET} in column {name!r}")


def place_of(part: Slice, i: int) -> str:
    """Returns the place in the manifest of row ``i`` that `RowListing.rows` made from ``part``."""
    count = len(part.table)
    return part.place(i) if i < count else part.unparsed[i - count].place
