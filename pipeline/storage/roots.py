"""Where the files of a corpus may lie: what a manifest or a link names elsewhere is not read.

Two checks: by text alone, which a listing can afford for every row, and by the real path of a file that is open, which
neither a link nor a swap of names can change.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from urllib.parse import unquote

from pipeline.core.errors import SampleError

_SYSTEM = ("/proc", "/sys", "/dev")
"""Folders whose files are the kernel's: processes, devices, settings."""
_SHARED_MEMORY = "/dev/shm"
_UNDECODED = re.compile("[\udc80-\udcff]")
"""A byte of a path that is not UTF-8, as Python decodes it."""
_UP = re.compile(r"(?:^|/)\.\.(?:/|$)")


@dataclass(frozen=True)
class AllowedRoots:
    """Folders of this machine and prefixes of object stores, in which all files of a corpus must lie.

    Args:
        roots: absolute paths and URLs.
        follow_symlinks: a link below a root may lead anywhere but into the kernel's own folders.
        key: where the config widens this, for messages.
        anchored: False if the corpus may be moved or mounted elsewhere with its first root, and stays what it is.
    """

    roots: tuple[str, ...]
    follow_symlinks: bool = False
    key: str = "source.roots"
    anchored: bool = True

    def allows(self, place: str) -> bool:
        """Whether an absolute path or a URL lies in a root, by its text."""
        if place.startswith("/"):
            path = posixpath.normpath(f"/{place.lstrip('/')}") if "/." in place or "//" in place else place
            return path.startswith(self._starts) and not self._is_system(path)
        steps_up = ("%" in place or ".." in place) and _UP.search(unquote(place))
        return place.startswith(self._starts) and not steps_up

    def check(self, place: str) -> None:
        """Raises ``SampleError`` (``forbidden``) for an absolute path or a URL that does not lie in a root."""
        if not self.allows(place):
            raise SampleError("forbidden", f"{place!r} lies outside of what {self.key} allows")

    def check_real(self, path: str, place: str) -> None:
        """The same for the real path of a file that was opened as ``place``."""
        if self._is_system(path) or not (self.follow_symlinks or path.startswith(_real(self._folders))):
            raise SampleError("forbidden", f"{place!r} leads to {path!r}, outside of what {self.key} allows")

    def plain(self) -> tuple[str, ...]:
        """What decides which files are allowed, as strings that compare and that JSON can hold."""
        roots = self.roots if self.anchored else (".", *self.roots[1:])
        named = (_UNDECODED.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", root) for root in roots)
        return (*sorted(named), *(["follow_symlinks"] if self.follow_symlinks else []))

    def system_roots(self) -> list[str]:
        """The roots that are of the kernel's own, in which nothing is allowed."""
        return [root for root in self._folders if self._is_system(root)]

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return tuple(root for root in self.roots if root.startswith("/"))

    @cached_property
    def _starts(self) -> tuple[str, ...]:
        return tuple(f"{root.rstrip('/')}/" for root in self.roots)

    def _is_system(self, path: str) -> bool:
        if not path.startswith(_SYSTEM):
            return False
        if _below(path, _SHARED_MEMORY) and any(_below(folder, _SHARED_MEMORY) for folder in self._folders):
            return False  # an ordinary folder in memory, where the config itself names one in it
        return any(_below(path, folder) for folder in _SYSTEM)


@lru_cache(maxsize=64)
def _real(folders: tuple[str, ...]) -> tuple[str, ...]:
    """How real paths in one of ``folders`` begin, on this machine."""
    return tuple(f"{os.path.realpath(folder).rstrip('/')}/" for folder in folders)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
