"""Resolves the URIs of a manifest against its root, and checks that they may be read."""

from __future__ import annotations

import os
import posixpath
from functools import cached_property

from pipeline import storage
from pipeline.core.errors import one_line
from pipeline.core.redaction import has_secret
from pipeline.sources._manifest.config import Config
from pipeline.sources._shared.sample_ids import scheme_of
from pipeline.storage.roots import AllowedRoots

SECRET = "a URL with a password or a signature"
_BUCKET_SCHEMES = ("s3", "gs", "abfs")
"""Schemes whose first name is a bucket or a container, never a file."""
_MAX_SHOWN = 300
"""Characters of a value in a reason."""


class InvalidRow(Exception):
    """A row that names no sample.

    Args:
        key: the key of the source's config that the reason is about.
        reason: what is wrong, as the rest of a sentence that begins with the row's place. Without secrets.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason


class UriResolver:
    """Turns the values of URI columns into absolute paths and full URLs."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def resolve(self, role: str, column: str, value: str) -> tuple[str, str, bool]:
        """Resolves the value of one row.

        Returns:
            relative: the path relative to the root; the full URI if it lies elsewhere.
            uri: the absolute path or URL.
            allowed: whether it lies in an allowed root.

        Raises:
            InvalidRow: a secret, a scheme that is not allowed, ``file:`` with a host.
        """
        if has_secret(value):
            raise InvalidRow(f"columns.{role}", f"has {SECRET} in column {column!r}")
        scheme = scheme_of(value)
        root, root_scheme = self.root
        if (scheme or ("file" if value.startswith("/") else root_scheme)) not in self.config.schemes:
            allowed = ", ".join(self.config.schemes)
            found = one_line(f"has {value!r} in column {column!r}", _MAX_SHOWN)
            raise InvalidRow(f"columns.{role}", f"{found}; schemes that are allowed: {allowed}")
        if scheme == "file":
            value, scheme = value[len("file://") :], None
            if not value.startswith("/"):
                found = one_line(f"has 'file://{value}' in column {column!r}", _MAX_SHOWN)
                raise InvalidRow(f"columns.{role}", f"{found}; write file:///absolute/path")
        inside = False
        if scheme is not None:
            full = _lower_scheme(value, scheme)
        elif value.startswith("/"):
            full = posixpath.normpath(value)
        else:
            names = value.split("/")
            plain = posixpath.normpath(value) if {".", ".."} & set(names) or root_scheme == "file" else value
            inside = plain.split("/")[0] != ".."
            full = posixpath.join(root, plain)
            full = full if inside or root_scheme != "file" else posixpath.normpath(full)
            if root_scheme in ("http", "https") and has_secret(full):
                raise InvalidRow(f"columns.{role}", f"has {SECRET} in column {column!r}")
        relative = full.removeprefix(self._prefix)
        return relative, full, inside or self.allowed.allows(full)

    @cached_property
    def root(self) -> tuple[str, str]:
        """The folder of relative URIs (absolute path or URL), and its scheme."""
        url = self.config.root
        if url is None:
            path = manifest_path(self.config)
            folder, slash, _ = path.rpartition("/")
            url = folder + slash if folder.endswith((":", ":/")) else folder or slash or "."
            if url.endswith("://") and scheme_of(path) in _BUCKET_SCHEMES:
                url = path  # the manifest is a whole bucket: its parent would allow every other bucket
        if storage.is_local(url):
            return os.path.abspath(storage.split(url)[1]), "file"
        return url, url.split("://")[0].lower()

    @cached_property
    def allowed(self) -> AllowedRoots:
        """The root and ``roots``."""
        more = (root.removeprefix("file://") for root in self.config.roots)
        named = ((root, scheme_of(root)) for root in more)
        folders = (os.path.abspath(root) if scheme is None else _lower_scheme(root, scheme) for root, scheme in named)
        return AllowedRoots((self.root[0], *folders))

    @cached_property
    def _prefix(self) -> str:
        """The root with a slash at the end."""
        root = self.root[0]
        return root if root.endswith("/") else f"{root}/"


def manifest_path(config: Config) -> str:
    """Returns the path of the manifest, without a slash at the end."""
    return config.path.rstrip("/") or "/"


def _lower_scheme(url: str, scheme: str) -> str:
    """Returns ``url`` with its scheme replaced by ``scheme``, which is the same in lower case."""
    return url if url.startswith(scheme) else f"{scheme}{url[len(scheme) :]}"
