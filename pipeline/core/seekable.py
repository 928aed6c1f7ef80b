"""Base class of binary files that keep their own position."""

from __future__ import annotations

import io


class Seekable(io.RawIOBase):
    """A binary file with a position and, if known, a size. Subclasses implement ``read`` and advance ``at``."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        """Bytes; None: unknown, for example of a compressed transfer."""
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size or 0}[whence]
        if at < 0:
            raise ValueError(f"seek to {at}")
        self.at = at
        return at

    def wanted(self, size: int | None) -> int:
        """Returns the bytes that ``read(size)`` returns; -1 for all remaining bytes if the file's size is unknown."""
        wanted = -1 if size is None or size < 0 else size
        if self.size is None:
            return wanted
        rest = max(0, self.size - self.at)
        return rest if wanted < 0 else min(wanted, rest)
