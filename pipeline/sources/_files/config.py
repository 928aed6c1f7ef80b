"""The config of the files source."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.core.errors import NotAllowed
from pipeline.sources._files.patterns import Patterns
from pipeline.sources._shared.sample_ids import SCHEMES, scheme_of

SIDECARS = ("**/.*", "**/.*/**", "**/manifest.*", "**/README*", "**/LICENSE*", "**/*_ATTRIBUTION*")
"""The default of ``exclude``: hidden files, and files that describe a corpus."""


class Config(BaseModel):
    """``sample_id`` is the path relative to the root: the folder, or the part of a glob before its first wildcard.

    Globs: ``*`` and ``?`` within a name, ``**`` over any number of folders, ``[...]``, ``{a,b}``. They are relative
    to the root: ``*.bak`` matches in the root only, ``**/*.bak`` in every folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["files"] = "files"
    path: str = Field(min_length=1)
    """A folder, a glob or one file, local or any fsspec URL."""
    include: tuple[str, ...] = ()
    """Globs; a file must match one of them. Empty: all files."""
    exclude: tuple[str, ...] = SIDECARS
    """Globs of files that are not samples."""
    version: Literal["mtime", "sha256"] = "mtime"
    """How a changed file is detected: by size and modification time (etag or version id where there is one), or by
    content (not for files of over 16 GiB)."""
    schemes: tuple[str, ...] = SCHEMES
    """Schemes that ``path`` may have; a plain path is ``file``."""
    follow_symlinks: bool = False
    """True: also follow links that lead out of the folder. False: what they lead to is a failure (``forbidden``)."""

    @field_validator("include", "exclude")
    @classmethod
    def _check_globs(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        Patterns(globs)
        return globs

    @model_validator(mode="after")
    def _check_scheme(self) -> Config:
        if (scheme_of(self.path) or "file") not in self.schemes:
            raise NotAllowed(f"found {self.path!r}", f"schemes that are allowed: {', '.join(self.schemes)}", "path")
        return self
