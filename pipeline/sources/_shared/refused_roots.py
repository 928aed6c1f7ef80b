"""Counts the rows of a listing that cannot be used: a file lies outside of the allowed roots, or the row names no
sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from pipeline.core.errors import ConfigError
from pipeline.storage.roots import AllowedRoots


class RefusedTally:
    """Counts of the listed and refused rows, and the deepest folder that holds all refused files."""

    def __init__(self) -> None:
        self.rows, self.refused, self.bad = 0, 0, 0
        """All rows; rows with a file outside of the allowed roots; rows that name no sample."""
        self.first_bad: tuple[str, str] | None = None
        """(key of the source's config, reason) of the first row that names no sample."""
        self._common: list[str] | None = None

    def add(self, places: Sequence[str]) -> None:
        """Counts one refused row.

        Args:
            places: absolute paths or URLs of its refused files.
        """
        self.refused += 1
        for place in places:
            steps = place.split("/")[:-1]
            both = zip(steps if self._common is None else self._common, steps, strict=False)
            self._common = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both)]

    def add_bad(self, key: str, reason: str) -> None:
        """Counts one row that names no sample."""
        self.bad += 1
        self.first_bad = self.first_bad or (key, reason)

    @property
    def common_root(self) -> str | None:
        """The deepest folder, or prefix of an object store, that holds all refused files; None if they share only the
        root of the machine or the scheme."""
        steps = self._common or []
        least = 3 if steps and steps[0].endswith(":") else 2  # "s3:", "", bucket; "", folder
        return "/".join(steps) if len(steps) >= least else None


def check_roots(allowed: AllowedRoots, where: str) -> None:
    """Raises ``ConfigError`` for a root in a folder of the kernel (``/proc``), whose files are never read."""
    for root in allowed.system_roots():
        raise ConfigError(where, f"{root!r} is a folder of the kernel", "a folder with media")
