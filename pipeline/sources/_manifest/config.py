"""The config of the manifest source."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.core.errors import NotAllowed
from pipeline.core.schema import ROLES
from pipeline.sources._shared.sample_ids import SCHEMES, scheme_of


class Columns(BaseModel):
    """Names of the manifest's columns. A null in a column means that the sample has no such value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    """null: the first URI of the row, relative to the root, in the order text, image, video, audio, other."""
    text: str | None = None
    image: str | None = None
    video: str | None = None
    audio: str | None = None
    other: str | None = None
    """Files whose modality is detected from their content."""
    inline_text: str | None = None
    """The text itself."""

    @model_validator(mode="after")
    def _check_has_media(self) -> Columns:
        if not self.uris() and not (self.inline_text and self.id):
            raise NotAllowed(
                "names no column of media", "one of text, image, video, audio, other, or inline_text together with id"
            )
        return self

    def uris(self) -> dict[str, str]:
        """Returns role -> column, of the columns that hold URIs."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}

    def strings(self) -> dict[str, str]:
        """Returns key of this section -> column, of all columns that are named."""
        named = {"id": self.id, **self.uris(), "inline_text": self.inline_text}
        return {key: name for key, name in named.items() if name is not None}


class Config(BaseModel):
    """A table of samples: one row per sample, one column per modality."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["manifest"] = "manifest"
    path: str = Field(min_length=1)
    """A file, or a folder of Parquet files, local or any fsspec URL. CSV, TSV and JSON lines are read into memory as a
    whole: use Parquet for large manifests."""
    format: Literal["parquet", "csv", "tsv", "jsonl"] | None = None
    """null: by the extension."""
    separator: str | None = None
    """The character between the values of CSV and TSV. null: a comma, for TSV a tab."""
    columns: Columns
    passthrough: tuple[str, ...] = ()
    """Columns that are copied to every row of the dataset with their types; columns of CSV and TSV as strings, as they
    are written."""
    root: str | None = None
    """Folder of relative URIs, in which all files must lie; null: the manifest's own."""
    roots: tuple[str, ...] = ()
    """Further folders, and prefixes of object stores, in which files may lie. A file elsewhere, also by a link, is a
    failure (``forbidden``); so is any file of ``/proc``, ``/sys`` and ``/dev``."""
    schemes: tuple[str, ...] = SCHEMES
    """Schemes that URIs may have; plain paths are ``file``."""
    version: Literal["uri", "stat"] = "uri"
    """How a changed sample is detected: by the values of its row, or also by the size and modification time (etag) of
    each file."""
    max_cell_bytes: int = Field(default=64 << 20, ge=1)
    """Maximum size of one value, and of one line of JSON."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Maximum size of all values that are read together; for CSV, TSV and JSON lines, of the decompressed file. null:
    1 GiB; for Parquet, a hundred times the file size if that is more."""

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, separator: str | None) -> str | None:
        if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0'):
            raise NotAllowed(f"found {separator!r}", "one ASCII character, no quote and no line end, e.g. ';'")
        return separator

    @model_validator(mode="after")
    def _check_schemes(self) -> Config:
        for root in self.roots:
            if not root or (scheme_of(root) or "file") not in self.schemes:
                raise NotAllowed(f"found {root!r}", f"folders and prefixes of {', '.join(self.schemes)}", "roots")
        return self

    def used_columns(self) -> list[tuple[str, str]]:
        """Returns (key of this section, column) of every column that is read."""
        named = [(f"columns.{key}", name) for key, name in self.columns.strings().items()]
        return [*named, *(("passthrough", name) for name in self.passthrough)]
