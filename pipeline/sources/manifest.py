"""A table of samples: Parquet, CSV, TSV or JSON lines, with a column for each modality.

A row that names no sample (without an id, with a URI that is not allowed, broken) costs that row: it is listed with the
reason, and becomes a failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline import storage
from pipeline.core.errors import ConfigError, NotAllowed, describe, one_line
from pipeline.core.redaction import has_secret, is_url_with_secret
from pipeline.core.schema import FIXED, LISTING, ROLES
from pipeline.sources._shared import tables
from pipeline.sources._shared.refused_roots import RefusedTally, check_roots
from pipeline.sources._shared.sample_ids import LISTING_ROWS, SCHEMES, id_of, scheme_of, stat_token, version_of
from pipeline.sources._shared.table_reader import Limits, Slice, TableReader, check_storable, is_string, plain, values
from pipeline.sources._shared.text_table import similar
from pipeline.storage.roots import AllowedRoots

_Sections = list[tuple[str, str]]
_Row = dict[str, Any]
_Rows = list[_Row]
"""Rows of ``LISTING``."""
_BUCKET_SCHEMES = ("s3", "gs", "abfs")
"""What follows these is a bucket or a container, and no file."""
_MAX_SHOWN = 300
"""Characters of a value in a reason."""
_SECRET = "a URL with a password or a signature"


class _BadRow(Exception):
    """A row that names no sample.

    Args:
        key: the key of the source's config that it is about.
        reason: what is wrong with it, as the rest of a sentence that begins with its place. Without secrets.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason


class Columns(BaseModel):
    """Names of the manifest's columns. A null in one means: this sample has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    """null: the first URI of the row, relative to the root, in the order text, image, video, audio, other."""
    text: str | None = None
    image: str | None = None
    video: str | None = None
    audio: str | None = None
    other: str | None = None
    """Files of which only the content tells what they are."""
    inline_text: str | None = None
    """The text itself."""

    @model_validator(mode="after")
    def _enough(self) -> Columns:
        if not self.uris() and not (self.inline_text and self.id):
            raise NotAllowed(
                "names no column of media", "one of text, image, video, audio, other, or inline_text together with id"
            )
        return self

    def uris(self) -> dict[str, str]:
        """role -> column."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}

    def strings(self) -> dict[str, str]:
        """Key of this section -> column, of all that are named."""
        named = {"id": self.id, **self.uris(), "inline_text": self.inline_text}
        return {key: name for key, name in named.items() if name is not None}


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["manifest"] = "manifest"
    path: str = Field(min_length=1)
    """A file, or a folder of Parquet files, local or any fsspec URL. CSV, TSV and JSON lines are read whole: give big
    ones as Parquet."""
    format: Literal["parquet", "csv", "tsv", "jsonl"] | None = None
    """null: by the extension."""
    separator: str | None = None
    """The character between the values of CSV and TSV. null: a comma, of TSV a tab."""
    columns: Columns
    passthrough: tuple[str, ...] = ()
    """Columns that are copied to every row of the dataset, in their own types; of CSV and TSV as strings, as they are
    written."""
    root: str | None = None
    """Folder of relative URIs, in which all files must lie; null: the manifest's own."""
    roots: tuple[str, ...] = ()
    """Further folders, and prefixes of object stores, in which files may lie. A file elsewhere, be it by a link, is a
    failure (``forbidden``); so is any file of ``/proc``, ``/sys`` and ``/dev``."""
    schemes: tuple[str, ...] = SCHEMES
    """Schemes that URIs may have; plain paths are ``file``."""
    version: Literal["uri", "stat"] = "uri"
    """What tells a changed sample: the row's own values, or also size and time of change (etag) of each file."""
    max_cell_bytes: int = Field(default=64 << 20, ge=1)
    """Of one value, and of one line of JSON."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Of all values that are read; of CSV, TSV and JSON lines, of the file once it is decompressed. null: 1 GiB; of
    Parquet, a hundred times the file where that is more."""

    @field_validator("separator")
    @classmethod
    def _one_character(cls, separator: str | None) -> str | None:
        if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0'):
            raise NotAllowed(f"found {separator!r}", "one ASCII character, no quote and no line end, e.g. ';'")
        return separator

    @model_validator(mode="after")
    def _roots_of_allowed_schemes(self) -> Config:
        for root in self.roots:
            if not root or (scheme_of(root) or "file") not in self.schemes:
                raise NotAllowed(f"found {root!r}", f"folders and prefixes of {', '.join(self.schemes)}", "roots")
        return self


class ManifestSource:
    """Lists the rows of a manifest. Files are looked at only for ``version: stat``, and never opened."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.where = "source"
        self.refused_folders: list[str] = []
        self.left_out: dict[str, int] = {}

    def check(self, where: str) -> None:
        """Raises ``ConfigError``: unreachable, unreadable, columns missing or of a wrong type, clashing names."""
        self.where = where
        check_roots(self.allowed_roots(), f"{where}.roots")
        storage.check_readable(self.config.path, f"{where}.path")
        schema = self._manifest.schema
        for key, name in self._sections():
            if name not in schema.names:
                raise self._missing(f"{where}.{key}", name)
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

    def _missing(self, where: str, name: str) -> ConfigError:
        explained = self._manifest.explain_missing(name)
        if explained is not None:
            return ConfigError(where, *explained)
        names = self._manifest.schema.names
        some = ", ".join(map(repr, names[:50])) + (", …" if len(names) > 50 else "")
        meant = next((f" (did you mean {one!r}?)" for one in names if similar(one) == similar(name)), "")
        return ConfigError(where, f"no column {name!r} in the manifest{meant}", f"one of: {some}")

    def allowed_roots(self) -> AllowedRoots:
        """The root and ``roots``."""
        return self._allowed

    def passthrough(self) -> pa.Schema:
        """The columns as the manifest types them; dictionaries as their values."""
        schema = self._manifest.schema
        return pa.schema([pa.field(name, plain(schema.field(name).type)) for name in self.config.passthrough])

    def lists(self, url: str) -> bool:
        """False: a manifest lists what its rows name, not what lies in a folder."""
        return False

    def list(self) -> Iterator[pa.Table]:
        """Tables of schema ``LISTING`` + ``passthrough()``, at most ``LISTING_ROWS`` rows each.

        Raises:
            ConfigError: no row, or none that names a sample whose files lie in the roots.
        """
        passthrough, tally = self.passthrough(), RefusedTally()
        for part in self._manifest.read([name for _, name in self._sections()], LISTING_ROWS):
            rows = self._rows(part, tally)
            tally.rows += len(rows)
            listing = self._table(rows, tally)
            order = pc.sort_indices(listing["sample_id"])
            yield self._with_copied(listing.take(order), order, part.table, passthrough)
        self._check_tally(tally)

    def twice(self, sample_id: str) -> ConfigError:
        """Reads the manifest again for the places of an id."""
        found: list[str] = []
        for part in self._manifest.read([name for _, name in self._sections()], LISTING_ROWS):
            rows = self._rows(part, RefusedTally())
            found += [_place(part, i) for i, row in enumerate(rows) if row["sample_id"] == sample_id]
            if len(found) > 1:
                break
        where = f"{self.where}.{'columns.id' if self.config.columns.id else 'columns'}"
        return ConfigError(where, f"id {sample_id!r} is in {' and in '.join(found[:2])}", "ids must differ")

    def _check_tally(self, tally: RefusedTally) -> None:
        """Raises ``ConfigError`` if nothing that was listed can be read."""
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
                f"all {tally.refused} rows{rest} name files outside of {self._root[0]!r}",
                f"where they are meant to be read: roots: [{tally.common_root or 'FOLDER'!r}]",
            )

    def _with_copied(self, listing: pa.Table, order: pa.Array, table: pa.Table, passthrough: pa.Schema) -> pa.Table:
        """``listing`` with the columns of ``passthrough``, which are null in rows that name no sample.

        Args:
            order: the row of ``table`` that each row of ``listing`` is made from.
        """
        if listing["refused"].null_count < len(listing):
            order = pa.array(order.to_numpy(), mask=listing["refused"].is_valid().to_numpy())
        extra = self._copied(table, passthrough).take(order)
        return pa.Table.from_arrays([*listing.columns, *extra.columns], schema=pa.schema([*LISTING, *passthrough]))

    def _copied(self, table: pa.Table, passthrough: pa.Schema) -> pa.Table:
        """The columns of ``passthrough``, as it types them."""
        try:
            return table.select(passthrough.names).combine_chunks().cast(passthrough)
        except pa.ArrowException as error:
            raise ConfigError(
                f"{self.where}.passthrough", f"a column cannot be read ({describe(error)})", "mend the manifest"
            ) from error

    # -- rows ------------------------------------------------------------------------------------

    def _sections(self) -> _Sections:
        """(key in the config, column) of every column that is read."""
        named = [(f"columns.{key}", name) for key, name in self.config.columns.strings().items()]
        return [*named, *(("passthrough", name) for name in self.config.passthrough)]

    def _rows(self, part: Slice, tally: RefusedTally) -> _Rows:
        """Rows of ``LISTING``: one for each row of the table, in its order, and then those that could not be parsed."""
        columns: dict[str, list[Any]] = {}
        unreadable: dict[int, str] = {}
        for name in dict.fromkeys(name for _, name in self._sections()):
            columns[name], reasons = values(part.table, name, f"{self.where}.path")
            unreadable = {**reasons, **unreadable}
        rows: _Rows = []
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            try:
                if unreadable and i in unreadable:
                    raise _BadRow("path", unreadable[i])
                rows.append(self._sample(dict(zip(columns, row, strict=True)), tally))
            except _BadRow as error:
                rows.append(self._bad_sample(part.place(i), error.key, error.reason, tally))
        rows += [self._bad_sample(place, "path", reason, tally) for place, reason in part.bad]
        return rows

    def _bad_sample(self, place: str, key: str, reason: str, tally: RefusedTally) -> dict[str, Any]:
        """The listing's row for a row of the manifest that names no sample."""
        message = f"{place} of {self._name!r} {reason}"
        tally.add_bad(key, message)
        version = hashlib.sha256(json.dumps([place, reason]).encode()).hexdigest()
        return {"sample_id": f"{self._name}#{place}", "source_version": version, "refused": message}

    def _table(self, rows: _Rows, tally: RefusedTally) -> pa.Table:
        """``rows`` as a table. Columns that no row can have are made without a look at the rows."""
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

    def _sample(self, values: dict[str, Any], tally: RefusedTally) -> dict[str, Any]:
        """The row of a sample. Raises ``_BadRow``."""
        columns = self.config.columns
        inline = values[columns.inline_text] if columns.inline_text else None
        sample: dict[str, Any] = {"inline_text": inline}
        tokens: list[tuple[str, str, str]] = []
        refused: list[str] = []
        for role, name in self._roles:
            if values[name] in (None, ""):
                continue
            relative, uri, allowed = self._uri(role, name, values[name])
            sample[f"{role}_uri"] = uri
            if allowed:
                tokens.append((role, relative, "" if self.config.version == "uri" else self._token(role, uri)))
            else:
                tokens.append((role, relative, ""))  # it is not looked at
                refused.append(uri)
        sample_id = values[columns.id] if columns.id is not None else tokens[0][1] if tokens else None
        if sample_id in (None, ""):
            raise _BadRow("columns", "has no id" if tokens or inline else "has no id and no file")
        sample["sample_id"] = str(sample_id)
        passthrough = {name: values[name] for name in self.config.passthrough}
        self._check_copied(sample["sample_id"], passthrough)
        sample["source_version"] = version_of(tokens, inline, passthrough)
        if refused:
            sample["forbidden"] = True
            tally.add(refused)
        return sample

    def _check_copied(self, sample_id: str, passthrough: dict[str, Any]) -> None:
        """Raises ``_BadRow`` for what shards would hold and may not."""
        if is_url_with_secret(sample_id):
            raise _BadRow("columns", f"has an id that is {_SECRET}")
        for name, value in passthrough.items():
            if isinstance(value, str) and is_url_with_secret(value):
                raise _BadRow("passthrough", f"has {_SECRET} in column {name!r}")

    @cached_property
    def _roles(self) -> tuple[tuple[str, str], ...]:
        """(role, column)."""
        return tuple(self.config.columns.uris().items())

    def _token(self, role: str, uri: str) -> str:
        try:
            return stat_token(uri)
        except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
            raise ConfigError(
                f"{self.where}.columns.{role}", f"cannot reach {uri!r} ({describe(error)})", "or give version: uri"
            ) from error

    def _uri(self, role: str, column: str, value: str) -> tuple[str, str, bool]:
        """(relative to the root where it lies inside, absolute or full, whether it is allowed) of a row's value.

        Raises:
            _BadRow: a secret, a scheme that is not allowed, ``file:`` with a host.
        """
        if has_secret(value):
            raise _BadRow(f"columns.{role}", f"has {_SECRET} in column {column!r}")
        scheme = scheme_of(value)
        root, root_scheme = self._root
        if (scheme or ("file" if value.startswith("/") else root_scheme)) not in self.config.schemes:
            allowed = ", ".join(self.config.schemes)
            found = one_line(f"has {value!r} in column {column!r}", _MAX_SHOWN)
            raise _BadRow(f"columns.{role}", f"{found}; schemes that are allowed: {allowed}")
        if scheme == "file":
            value, scheme = value[len("file://") :], None
            if not value.startswith("/"):
                found = one_line(f"has 'file://{value}' in column {column!r}", _MAX_SHOWN)
                raise _BadRow(f"columns.{role}", f"{found}; write file:///absolute/path")
        inside = False
        if scheme is not None:
            full = _lower_scheme(value, scheme)
        elif value.startswith("/"):
            full = posixpath.normpath(value)
        else:
            steps = value.split("/")
            plain = posixpath.normpath(value) if {".", ".."} & set(steps) or root_scheme == "file" else value
            inside = plain.split("/")[0] != ".."
            full = posixpath.join(root, plain)
            full = full if inside or root_scheme != "file" else posixpath.normpath(full)
            if root_scheme in ("http", "https") and has_secret(full):
                raise _BadRow(f"columns.{role}", f"has {_SECRET} in column {column!r}")
        relative = full.removeprefix(self._prefix)
        return relative, full, inside or self._allowed.allows(full)

    @cached_property
    def _prefix(self) -> str:
        """How places in the root begin."""
        root = self._root[0]
        return root if root.endswith("/") else f"{root}/"

    @cached_property
    def _allowed(self) -> AllowedRoots:
        more = (root.removeprefix("file://") for root in self.config.roots)
        named = ((root, scheme_of(root)) for root in more)
        folders = (os.path.abspath(root) if scheme is None else _lower_scheme(root, scheme) for root, scheme in named)
        return AllowedRoots((self._root[0], *folders))

    @cached_property
    def _root(self) -> tuple[str, str]:
        """The folder of relative URIs (absolute path or URL) and its scheme."""
        url = self.config.root
        if url is None:
            path = self._path
            folder, slash, _ = path.rpartition("/")
            url = folder + slash if folder.endswith((":", ":/")) else folder or slash or "."
            if url.endswith("://") and scheme_of(path) in _BUCKET_SCHEMES:
                url = path  # a whole bucket as a folder of Parquet files: no other may be read
        if storage.is_local(url):
            return os.path.abspath(storage.split(url)[1]), "file"
        return url, url.split("://")[0].lower()

    @property
    def _path(self) -> str:
        """The manifest, a folder without the slash at its end."""
        return self.config.path.rstrip("/") or "/"

    @cached_property
    def _name(self) -> str:
        """The manifest's own name, on one line."""
        return one_line(id_of(self._path.rpartition("/")[2]))

    @cached_property
    def _manifest(self) -> TableReader:
        return tables.open_manifest(
            self._path,
            self.config.format,
            strings={*self.config.columns.strings().values(), *self.config.passthrough},
            wanted={name for _, name in self._sections()},
            where=f"{self.where}.path",
            limits=Limits(self.config.max_cell_bytes, self.config.max_bytes),
            separator=self.config.separator,
        )


def _place(part: Slice, i: int) -> str:
    """The place of a row that `ManifestSource` made of ``part``."""
    count = len(part.table)
    return part.place(i) if i < count else part.bad[i - count].place


def _lower_scheme(url: str, scheme: str) -> str:
    """``url`` with its scheme, which is ``scheme``, in lower case."""
    return url if url.startswith(scheme) else f"{scheme}{url[len(scheme) :]}"
