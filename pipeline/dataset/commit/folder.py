"""Access to the files of a dataset: by path relative to its folder, without following a symbolic link below it.

A dataset may come from an untrusted source. If a link inside it were followed, moving or deleting a file of the dataset
would move or delete the link's target. All code that reads, writes, moves or deletes inside a dataset uses this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.core.errors import SampleError, StorageError
from pipeline.storage import local_files
from pipeline.storage.ranges import source_errors
from pipeline.storage.retry import retried


class NotAFolder(StorageError):
    """A file exists where a folder is expected."""


@dataclass(frozen=True)
class DatasetFolder:
    """The folder of a dataset, or of one of its versions.

    Every method raises ``StorageError`` for a symbolic link, a pipe, a socket or a device below the folder. ``root``
    itself and the folders above it may be links, because the user named them.
    """

    root: str

    def url(self, path: str) -> str:
        """Returns the URL of the file or folder ``path``; for an empty path, of the folder itself."""
        return storage.join(self.root, path) if path else self.root

    def exists(self, path: str) -> bool:
        return storage.exists(self.url(path), self.root)

    def is_file(self, path: str) -> bool:
        return storage.is_file(self.url(path), self.root)

    def list_files(self, path: str, suffix: str = "") -> list[str]:
        """Returns the names of everything directly inside ``path`` except folders, sorted; empty if it is missing."""
        try:
            return storage.list_files(self.url(path), suffix, self.root)
        except NotADirectoryError as error:
            raise NotAFolder(f"{self.url(path)!r} is a file; a folder is expected") from error

    def list_folders(self, path: str) -> list[str]:
        """Returns the names of the folders directly inside ``path``, sorted; empty if it is missing."""
        return storage.list_folders(self.url(path), self.root)

    def read(self, path: str, limit: int = storage.MAX_READ_BYTES) -> bytes:
        """Returns the content of a file. Raises ``FileNotFoundError``; ``StorageError`` for over ``limit`` bytes."""
        return storage.read_bytes(self.url(path), limit, self.root)

    def open(self, path: str, opened: Callable[[Any, str], Any]) -> Any:
        """Opens a file with ``opened(file system, path on it)`` and returns its result. Raises
        ``FileNotFoundError``."""
        fs, place = storage.split(self.url(path))
        if not storage.is_local(self.root):
            return opened(fs, place)
        descriptor = local_files.open_file(storage.split(self.root)[1], path)
        try:
            return opened(fs, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def size(self, path: str) -> int:
        """Returns the size of a file in bytes. Raises ``SampleError`` if it is missing."""
        if not storage.is_local(self.root):
            fs, place = storage.split(self.url(path))
            with source_errors(self.url(path)):
                return int(retried(lambda: fs.size(place)))
        try:
            return local_files.check(storage.split(self.root)[1], path).st_size
        except FileNotFoundError as error:
            raise SampleError("missing", f"no such file: {self.url(path)}") from error

    def publish(self, path: str, data: bytes) -> None:
        """Writes a file atomically: readers see all of it or nothing. Overwrites."""
        storage.publish(self.url(path), data, self.root)

    def publish_new(self, path: str, data: bytes) -> bool:
        """Creates a file exclusively. Returns False if it exists already."""
        return storage.publish_new(self.url(path), data, self.root)

    def atomic_file(self, path: str) -> storage.AtomicFile:
        """Returns a context manager: a binary file that appears when its block ends without an error."""
        return storage.AtomicFile(self.url(path), self.root)

    def move(self, source: str, target: str) -> None:
        """Moves a file. Does nothing if it has been moved already."""
        storage.move(self.url(source), self.url(target), self.root)

    def remove(self, path: str) -> None:
        """Deletes a file. Does nothing if it is missing."""
        storage.remove(self.url(path), self.root)

    def remove_empty_folder(self, path: str) -> None:
        """Deletes a folder if it is empty. Does nothing otherwise, and on an object store."""
        storage.remove_empty_folder(self.url(path), self.root)

    def remove_folder(self, path: str) -> None:
        """Deletes a folder and its content. Does nothing if it is missing."""
        storage.remove_folder(self.url(path), self.root)


def check_version(output: str, version: str) -> str:
    """Returns the folder of ``version`` of the dataset at ``output``. Raises ``StorageError`` for a symbolic link."""
    folder = DatasetFolder(output)
    if storage.is_local(output):
        folder.exists(version)
    return folder.url(version)
