"""A dataset's folder: what lies in it is reached by its path below it, and no symbolic link is followed on the way.

Whoever hands over a dataset decides what lies in it. Were a link followed, moving or deleting a file of the dataset
would move or delete what the link points to; so what reads, writes, moves or deletes inside a dataset does it here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.core.errors import SampleError, StorageError
from pipeline.storage import local_files


class NotAFolder(StorageError):
    """A file exists where a folder is expected."""


@dataclass(frozen=True)
class DatasetFolder:
    """The folder of a dataset, or of one of its versions.

    Every method raises ``StorageError`` at a link, a pipe, a socket or a device below it. ``root`` itself, and the
    folders above it, may be links: the user named them.
    """

    root: str

    def url(self, path: str) -> str:
        """Of the file or folder ``path``; of the folder itself for an empty one."""
        return storage.join(self.root, path) if path else self.root

    def exists(self, path: str) -> bool:
        return storage.exists(self.url(path), self.root)

    def is_file(self, path: str) -> bool:
        return storage.is_file(self.url(path), self.root)

    def list_files(self, path: str, suffix: str = "") -> list[str]:
        """Names of what is directly inside the folder ``path`` and no folder, sorted; empty if there is none."""
        try:
            return storage.list_files(self.url(path), suffix, self.root)
        except NotADirectoryError as error:
            raise NotAFolder(f"{self.url(path)!r} is a file; a folder is expected") from error

    def list_folders(self, path: str) -> list[str]:
        """Names of the folders directly inside the folder ``path``, sorted; empty if there is none."""
        return storage.list_folders(self.url(path), self.root)

    def read(self, path: str, limit: int = storage.MAX_READ_BYTES) -> bytes:
        """All bytes of a file. Raises ``FileNotFoundError``; ``StorageError`` for more than ``limit`` bytes."""
        return storage.read_bytes(self.url(path), limit, self.root)

    def open(self, path: str, opened: Callable[[Any, str], Any]) -> Any:
        """A file, opened by ``opened(file system, path on it)``. Raises ``FileNotFoundError``."""
        fs, place = storage.split(self.url(path))
        if not storage.is_local(self.root):
            return opened(fs, place)
        descriptor = local_files.open_file(storage.split(self.root)[1], path)
        try:
            return opened(fs, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def size(self, path: str) -> int:
        """Bytes of a file. Raises ``SampleError`` if it is gone."""
        if not storage.is_local(self.root):
            return storage.Blob(self.url(path)).size()
        try:
            return local_files.check(storage.split(self.root)[1], path).st_size
        except FileNotFoundError as error:
            raise SampleError("missing", f"no such file: {self.url(path)}") from error

    def publish(self, path: str, data: bytes) -> None:
        """Write a file so that no reader ever sees half of it. Overwrites."""
        storage.publish(self.url(path), data, self.root)

    def publish_new(self, path: str, data: bytes) -> bool:
        """Create a file exclusively; False if another was first."""
        return storage.publish_new(self.url(path), data, self.root)

    def atomic_file(self, path: str) -> storage.AtomicFile:
        """A binary file that appears when its block ends well."""
        return storage.AtomicFile(self.url(path), self.root)

    def move(self, source: str, target: str) -> None:
        """Move a file; moved already is fine."""
        storage.move(self.url(source), self.url(target), self.root)

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens if it is not there."""
        storage.remove(self.url(path), self.root)

    def remove_folder(self, path: str) -> None:
        """Delete a folder with all that is in it; nothing happens if it is not there."""
        storage.remove_folder(self.url(path), self.root)


def check_version(output: str, version: str) -> str:
    """The folder of ``version`` of the dataset at ``output``. Raises ``StorageError`` if it is a symbolic link."""
    folder = DatasetFolder(output)
    if storage.is_local(output):
        folder.exists(version)
    return folder.url(version)
