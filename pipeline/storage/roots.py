"""Folders in which the files of a corpus must lie. A file elsewhere, named by a manifest or by a link, is not read.

There are two checks: one on the text of a path or URL, which is cheap enough for every row of a listing, and one on the
real path of an open file, which neither a link nor a renamed file can change.
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
"""Folders of the kernel: their files are processes, devices and settings."""
_SHARED_MEMORY = "/dev/shm"
_UNDECODED = re.compile("[\udc80-\udcff]")
"""A byte of a path that is not UTF-8, as Python decodes it (surrogateescape)."""
_PARENT_STEP = re.compile(r"(?:^|/)\.\.(?:/|$)")


@dataclass(frozen=True)
class AllowedRoots:
    """Local folders and prefixes of object stores in which all files of a corpus must lie.

    Args:
        roots: absolute paths and URLs.
        follow_symlinks: a link below a root may lead anywhere except into a folder of the kernel.
        key: dotted path of the config key that allows more, for messages.
        anchored: False if the corpus is still the same after its first root is moved or mounted elsewhere.
    """

    roots: tuple[str, ...]
    follow_symlinks: bool = False
    key: str = "source.roots"
    anchored: bool = True

    def allows(self, place: str) -> bool:
        """Returns whether an absolute path or a URL lies in a root, judged by its text."""
        if place.startswith("/"):
            path = posixpath.normpath(f"/{place.lstrip('/')}") if "/." in place or "//" in place else place
            return path.startswith(self._starts) and not self._is_system(path)
        steps_up = ("%" in place or ".." in place) and _PARENT_STEP.search(unquote(place))
        return place.startswith(self._starts) and not steps_up

    def check(self, place: str) -> None:
        """Raises ``SampleError`` (``forbidden``) for an absolute path or a URL that does not lie in a root."""
        if not self.allows(place):
            raise SampleError("forbidden", f"{place!r} lies outside of what {self.key} allows")

    def check_real(self, path: str, place: str) -> None:
        """Raises ``SampleError`` (``forbidden``) for a file that does not lie in a root.

        Args:
            path: real path of the open file.
            place: the path that was opened, for the message.
        """
        if self._is_system(path) or not (self.follow_symlinks or path.startswith(_real(self._folders))):
            raise SampleError("forbidden", f"{place!r} leads to {path!r}, outside of what {self.key} allows")

    def plain(self) -> tuple[str, ...]:
        """Returns the settings that decide which files are allowed, as strings for comparison and for JSON."""
        roots = self.roots if self.anchored else (".", *self.roots[1:])
        named = (_UNDECODED.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", root) for root in roots)
        return (*sorted(named), *(["follow_symlinks"] if self.follow_symlinks else []))

    def system_roots(self) -> list[str]:
        """Returns the roots that are folders of the kernel, in which no file is allowed."""
        return [root for root in self._folders if self._is_system(root)]

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return tuple(root for root in self.roots if root.startswith("/"))

    @cached_property
    def _starts(self) -> tuple[str, ...]:
        return tuple(f"{root.rstrip('/')}/" for root in self.roots)

    def _is_system(self, path: str) -> bool:
        """Returns whether ``path`` lies in a folder of the kernel."""
        if not path.startswith(_SYSTEM):
            return False
        if _below(path, _SHARED_MEMORY) and any(_below(folder, _SHARED_MEMORY) for folder in self._folders):
            return False  # shared memory is an ordinary folder if a root lies in it
        return any(_below(path, folder) for folder in _SYSTEM)


@lru_cache(maxsize=64)
def _real(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the real path of each folder with a slash at the end."""
    return tuple(f"{os.path.realpath(folder).rstrip('/')}/" for folder in folders)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
