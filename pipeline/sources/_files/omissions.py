"""Counts files that cannot be samples although the config does not exclude them.

Only omissions that a user may not expect are counted: hidden files that the default of ``exclude`` leaves out, keys of
an object store with an empty name, ``.`` or ``..`` in their path, and special files.
"""

from __future__ import annotations

from typing import Any

from pipeline.sources._files.config import SIDECARS, Config
from pipeline.sources._files.selection import Selection


class OmissionCounter:
    """Counts files by the reason why they are left out.

    Args:
        counts: reason -> number of files; filled by this object.
    """

    def __init__(self, selection: Selection, config: Config, counts: dict[str, int]) -> None:
        self.selection, self.counts = selection, counts
        self.counts_hidden = selection.only is None and config.exclude == SIDECARS

    def enters_to_count(self, folder: str) -> bool:
        """Returns whether ``folder`` of a key store is walked only for the count: a name in its path is odd, and files
        in it could be samples without that name."""
        if self.selection.only is not None or not is_odd(folder):
            return False
        plain = _without_odd_names(folder)
        return not plain or self.selection.enters(plain)

    def add_odd(self, path: str, entry: dict[str, Any]) -> None:
        """Counts a key if the odd names in its path are the only reason why it is not a sample."""
        plain = _without_odd_names(path)
        if not path or self.selection.only is not None or not is_odd(path):
            return
        if self.selection.wants(plain) if plain else not self.selection.filters:
            self.add(_odd_part(path, entry.get("size")))

    def add_hidden(self, path: str, is_folder: bool = False) -> None:
        """Counts a hidden file that only the default of ``exclude`` leaves out. A hidden folder counts as one file."""
        if not self.counts_hidden:
            return
        filters = self.selection.filters
        if all(filter_.may_reach(path) if is_folder else filter_.match(path) for filter_ in filters):
            self.add("whose name, or their folder's, begins with a dot")

    def add_special(self) -> None:
        """Counts a pipe, a socket or a device."""
        self.add("that are pipes, sockets or devices")

    def add(self, reason: str) -> None:
        """Counts one file.

        Args:
            reason: the end of a sentence that begins with the number of files.
        """
        self.counts[reason] = self.counts.get(reason, 0) + 1


def is_hidden(path: str) -> bool:
    """Returns whether the last name of ``path`` begins with a dot and does not consist of dots only."""
    name = path.rstrip("/").rpartition("/")[2]
    return name.startswith(".") and name.strip(".") != ""


def is_odd(path: str) -> bool:
    """Returns whether a key has an empty name, ``.`` or ``..`` in it."""
    return not {"", ".", ".."}.isdisjoint(path.split("/"))


def _without_odd_names(path: str) -> str:
    return "/".join(name for name in path.split("/") if name not in ("", ".", ".."))


def _odd_part(path: str, size: int | None) -> str:
    """Returns what is odd in ``path``, as the end of a sentence about files."""
    names = path.split("/")
    if names[-1] == "":
        return (
            "empty, with '/' at the end of their name (folder markers)"
            if size == 0
            else "with '/' at the end of their name"
        )
    for name in ("..", "."):
        if name in names:
            return f"with {name!r} in their path"
    return "with an empty name in their path"
