"""Decides which files below the root are samples, and which folders can hold some."""

from __future__ import annotations

from pipeline.sources._files.config import Config
from pipeline.sources._files.location import Location
from pipeline.sources._files.patterns import Patterns


class Selection:
    """The conditions of the path, ``include`` and ``exclude``, applied to paths relative to the root."""

    def __init__(self, location: Location, config: Config) -> None:
        include = Patterns(config.include) if config.include else None
        self.only = location.only
        """Name of the single file, if the configured path is a file."""
        self.filters = tuple(patterns for patterns in (location.glob, include) if patterns is not None)
        """Each of these must match."""
        self.exclude = Patterns(config.exclude)

    def wants(self, path: str) -> bool:
        """Returns whether the file at ``path`` is a sample."""
        if self.only is not None:
            return path == self.only
        return all(filter_.match(path) for filter_ in self.filters) and not self.exclude.match(path)

    def enters(self, folder: str) -> bool:
        """Returns whether ``folder`` can hold a sample."""
        if self.only is not None or self.exclude.cover(folder):
            return False
        return all(filter_.may_reach(folder) for filter_ in self.filters)
