"""A table of samples: Parquet, CSV, TSV or JSON lines, with a column for each modality."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline import storage
from pipeline.errors import ConfigError, NotAllowed, describe
from pipeline.redaction import has_secret, is_url_with_secret
from pipeline.roots import AllowedRoots
from pipeline.schema import FIXED, LISTING, ROLES
from pipeline.sources import _tables
from pipeline.sources._identity import LISTING_ROWS, SCHEMES, scheme_of, stat_token, version_of
from pipeline.sources._refused import RefusedTally, check_roots

_Sections = list[tuple[str, str]]


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
    """A file, local or any fsspec URL. CSV, TSV and JSON lines are read whole: give big ones as Parquet."""
    format: Literal["parquet", "csv", "tsv", "jsonl"] | None = None
    """null: by the extension."""
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

    def check(self, where: str) -> None:
        """Raises ``ConfigError``: unreachable, unreadable, columns missing or of a wrong type, clashing names."""
        self.where = where
        check_roots(self.allowed_roots(), f"{where}.roots")
        storage.check_readable(self.config.path, f"{where}.path")
        schema = self._manifest.schema
        for key, name in self._sections():
            if name not in schema.names:
                some = ", ".join(schema.names[:50]) + (", …" if len(schema.names) > 50 else "")
                raise ConfigError(f"{where}.{key}", f"no column {name!r} in the manifest", f"one of: {some}")
            if schema.names.count(name) > 1:
                raise ConfigError(f"{where}.{key}", f"column {name!r} stands there twice", "rename one of them")
        for key, name in self.config.columns.strings().items():
            kind = _tables.plain(schema.field(name).type)
            if not (_tables.is_string(kind) or pa.types.is_null(kind) or (key == "id" and pa.types.is_integer(kind))):
                raise ConfigError(f"{where}.columns.{key}", f"column {name!r} holds {kind}", "a column of strings")
        for name in self.config.passthrough:
            if name in {*FIXED.names, *LISTING.names}:
                raise ConfigError(
                    f"{where}.passthrough", f"column {name!r} is the dataset's own", "rename it in the manifest"
                )
            if self.config.passthrough.count(name) > 1:
                raise ConfigError(f"{where}.passthrough", f"names {name!r} twice", "each column once")
            _tables.check_storable(_tables.plain(schema.field(name).type), name, f"{where}.passthrough")

    def allowed_roots(self) -> AllowedRoots:
        """The root and ``roots``."""
        return self._allowed

    def passthrough(self) -> pa.Schema:
        """The columns as the manifest types them; dictionaries as their values."""
        schema = self._manifest.schema
        return pa.schema([pa.field(name, _tables.plain(schema.field(name).type)) for name in self.config.passthrough])

    def lists(self, url: str) -> bool:
        """False: a manifest lists what its rows name, not what lies in a folder."""
        return False

    def list(self) -> Iterator[pa.Table]:
        """Tables of schema ``LISTING`` + ``passthrough()``, at most ``LISTING_ROWS`` rows each.

        Raises:
            ConfigError: no row, an id missing, a scheme that is not allowed, no row whose files lie in the roots.
        """
        passthrough, tally = self.passthrough(), RefusedTally()
        for places, table in self._manifest.read([name for _, name in self._sections()], LISTING_ROWS):
            extra = self._copied(table, passthrough)
            names = dict.fromkeys(name for _, name in self._sections())
            values = {name: _tables.values(table, name, f"{self.where}.path") for name in names}
            rows = [
                self._sample(place, {name: column[i] for name, column in values.items()}, tally)
                for i, place in enumerate(places)
            ]
            tally.rows += len(rows)
            listing = pa.Table.from_pylist(rows, schema=LISTING)
            for field, column in zip(extra.schema, extra.columns, strict=True):
                listing = listing.append_column(field, column)
            yield listing.take(pc.sort_indices(listing["sample_id"]))
        if not tally.rows:
            raise ConfigError(f"{self.where}.path", f"no row in {self.config.path!r}", "give a manifest with rows")
        if tally.refused == tally.rows:
            raise ConfigError(
                f"{self.where}.roots",
                f"all {tally.rows} rows name files outside of {self._root[0]!r}",
                f"where they are meant to be read: roots: [{tally.common_root or 'FOLDER'!r}]",
            )

    def twice(self, sample_id: str) -> ConfigError:
        """Reads the manifest again for the places of an id."""
        found: list[str] = []
        for places, table in self._manifest.read([name for _, name in self._sections()], LISTING_ROWS):
            columns = {name: _tables.values(table, name, f"{self.where}.path") for name in table.column_names}
            rows = ({name: column[i] for name, column in columns.items()} for i in range(len(table)))
            named = ((place, self._sample(place, row, None)) for place, row in zip(places, rows, strict=True))
            found += [place for place, sample in named if sample["sample_id"] == sample_id]
            if len(found) > 1:
                break
        where = f"{self.where}.{'columns.id' if self.config.columns.id else 'columns'}"
        return ConfigError(where, f"id {sample_id!r} stands in {' and in '.join(found[:2])}", "ids must differ")

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

    def _sample(self, place: str, values: dict[str, Any], tally: RefusedTally | None) -> dict[str, Any]:
        columns = self.config.columns
        inline = values[columns.inline_text] if columns.inline_text else None
        sample: dict[str, Any] = {"inline_text": inline}
        tokens: list[tuple[str, str, str]] = []
        refused: list[str] = []
        for role, name in self._roles:
            if values[name] in (None, ""):
                continue
            relative, uri, allowed = self._uri(f"{self.where}.columns.{role}", place, values[name])
            sample[f"{role}_uri"] = uri
            if allowed:
                tokens.append((role, relative, "" if self.config.version == "uri" else self._token(role, uri)))
            else:
                tokens.append((role, relative, ""))  # it is not looked at
                refused.append(uri)
        sample_id = values[columns.id] if columns.id is not None else tokens[0][1] if tokens else None
        if sample_id in (None, ""):
            raise ConfigError(f"{self.where}.columns", f"{place} has no id and no file", "give each row an id")
        sample["sample_id"] = str(sample_id)
        passthrough = {name: values[name] for name in self.config.passthrough}
        self._check_copied(place, sample["sample_id"], passthrough)
        sample["source_version"] = version_of(tokens, inline, passthrough)
        if refused:
            sample["forbidden"] = True
            if tally is not None:
                tally.add(refused)
        return sample

    def _check_copied(self, place: str, sample_id: str, passthrough: dict[str, Any]) -> None:
        """Raises ``ConfigError`` for what shards would hold and may not."""
        if is_url_with_secret(sample_id):
            raise ConfigError(
                f"{self.where}.columns", f"an id that is a URL with a password or a signature in {place}", "another id"
            )
        for name, value in passthrough.items():
            if isinstance(value, str) and is_url_with_secret(value):
                raise ConfigError(
                    f"{self.where}.passthrough",
                    f"a URL with a password or a signature in {place}, column {name!r}",
                    "leave the column out",
                )

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

    def _uri(self, where: str, place: str, value: str) -> tuple[str, str, bool]:
        """(relative to the root where it lies inside, absolute or full, whether it is allowed) of a row's value."""
        if has_secret(value):
            raise ConfigError(where, f"a URL with a password or a signature in {place}", "leave it out of the table")
        scheme = scheme_of(value)
        root, root_scheme = self._root
        if (scheme or ("file" if value.startswith("/") else root_scheme)) not in self.config.schemes:
            allowed = ", ".join(self.config.schemes)
            raise ConfigError(where, f"{value!r} in {place}", f"schemes that are allowed: {allowed}")
        if scheme == "file":
            value, scheme = value[len("file://") :], None
            if not value.startswith("/"):
                raise ConfigError(where, f"'file://{value}' in {place}", "write file:///absolute/path")
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
                raise ConfigError(
                    where, f"a URL with a password or a signature in {place}", "leave it out of the table"
                )
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
            folder, slash, _ = self.config.path.rpartition("/")
            url = folder + slash if folder.endswith((":", ":/")) else folder or slash or "."
        if storage.is_local(url):
            return os.path.abspath(storage.split(url)[1]), "file"
        return url, url.split("://")[0].lower()

    @cached_property
    def _manifest(self) -> _tables.Manifest:
        return _tables.open_manifest(
            self.config.path,
            self.config.format,
            strings={*self.config.columns.strings().values(), *self.config.passthrough},
            wanted={name for _, name in self._sections()},
            where=f"{self.where}.path",
            limits=_tables.Limits(self.config.max_cell_bytes, self.config.max_bytes),
        )


def _lower_scheme(url: str, scheme: str) -> str:
    """``url`` with its scheme, which is ``scheme``, in lower case."""
    return url if url.startswith(scheme) else f"{scheme}{url[len(scheme) :]}"
