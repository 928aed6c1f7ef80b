"""Groups the files of a folder into samples, and makes the listing's row of each."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipeline import storage
from pipeline.core.errors import ConfigError, describe
from pipeline.sources._files.local_walk import FoundFile
from pipeline.sources._shared.sample_ids import FORBIDDEN, content_token, id_of, role_of, version_of
from pipeline.storage.roots import AllowedRoots

Row = dict[str, str | bool | None]
"""A sample, as values of ``LISTING``."""


class SampleGrouping:
    """Makes rows of ``LISTING`` from files, folder by folder.

    Args:
        root: absolute path or URL of the folder that the files' paths are relative to.
        by_content: the source version is computed from the content of the files, which are read for it.
        allowed: where the files must lie; checked when they are read.
        where: dotted path of the source in the config.
    """

    def __init__(self, root: str, by_content: bool, allowed: AllowedRoots, where: str) -> None:
        self._root, self._is_local = root, storage.is_local(root)
        self._by_content, self._allowed, self._where = by_content, allowed, where
        self._escaped_ids: dict[str, str] = {}
        """Ids with a percent sign -> path, over all folders: only these can stem from two different paths."""

    def rows(self, files: list[FoundFile]) -> Iterator[Row]:
        """Yields the samples of one folder.

        Files with the same stem are one sample if no two of them have the same role. A forbidden file is always a
        sample of its own, so that it does not change other samples.

        Raises:
            ConfigError: two paths have the same sample_id; a file cannot be read for its version.
        """
        refused = [one for one in files if one[1] == FORBIDDEN]
        allowed = [one for one in files if one[1] != FORBIDDEN] if refused else files
        ids: dict[str, str] = {}
        for name, group in _groups(allowed):
            sample_id = id_of(name)
            known = self._escaped_ids if "%" in sample_id else ids
            if known.setdefault(sample_id, name) != name:
                both = f"{os.fsencode(known[sample_id])!r} and {os.fsencode(name)!r}"
                raise ConfigError(
                    f"{self._where}.path", f"{both} have the same sample_id {sample_id!r}", "rename one of them"
                )
            yield self._row(sample_id, group)
        yield from (self._row(id_of(one[0]), [one]) for one in refused if id_of(one[0]) not in ids)

    def _row(self, sample_id: str, files: list[FoundFile]) -> Row:
        named = [(role_of(path), path, self._uri(path), token) for path, token in files]
        if self._by_content:
            named = [(role, path, uri, self._content_token(uri, token)) for role, path, uri, token in named]
        refused = {"forbidden": True} if any(token == FORBIDDEN for *_, token in named) else {}
        return {
            "sample_id": sample_id,
            "source_version": version_of([(role, id_of(path), token) for role, path, _, token in named], None, {}),
            **{f"{role}_uri": uri for role, _, uri, _ in named},
            **refused,
        }

    def _content_token(self, uri: str, token: str) -> str:
        if token == FORBIDDEN:
            return token
        try:
            return content_token(storage.Blob(uri, self._allowed), token)
        except Exception as error:  # any backend may raise anything here
            raise ConfigError(
                f"{self._where}.version",
                f"cannot read {uri!r} ({describe(error)})",
                "run again, or give version: mtime",
            ) from error

    def _uri(self, path: str) -> str:
        root = self._root
        return storage.local_uri(os.path.join(root, path)) if self._is_local else storage.join(root, path)


def _groups(files: list[FoundFile]) -> Iterator[tuple[str, list[FoundFile]]]:
    """Yields (name, files) of each sample: the stem and its files, or a path and its one file."""
    paths = {path for path, _ in files}
    stems: dict[str, list[FoundFile]] = {}
    for path, token in files:
        stems.setdefault(os.path.splitext(path)[0] if role_of(path) != "other" else path, []).append((path, token))
    for stem, members in stems.items():
        roles = {role_of(path) for path, _ in members}
        if 1 < len(members) == len(roles) and stem not in paths:
            yield stem, members
        else:
            yield from ((one[0], [one]) for one in members)
