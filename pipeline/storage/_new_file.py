"""Writes a local file under a temporary name, and gives it its own name when it is complete."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from typing import Any

from pipeline.storage import local_files
from pipeline.storage._dataset_errors import dataset_errors, split_at_root
from pipeline.storage.urls import split


class NewFile:
    """A local file under a temporary name. Its folder is created if it does not exist.

    Args:
        url: the final path.
        root: a folder above it, below which no symbolic link is followed; None: links are followed.
    """

    def __init__(self, url: str, root: str | None) -> None:
        self.path = split(url)[1]
        self.root: str | None = None
        if root is not None:
            self.root, self.below = split_at_root(url, root)
        self.temporary = f"{self.path}.{uuid.uuid4().hex}.tmp"
        self.folder: int | None = None
        """Descriptor of the folder that holds the file, which names are relative to; None: names are full paths."""

    def open(self) -> _TemporaryFile:
        """Creates the file under its temporary name."""
        try:
            return self._create()
        except FileNotFoundError:  # `check_writable` of another process may have removed the folder while it was empty
            self.close()
            return self._create()

    def _create(self) -> _TemporaryFile:
        if self.root is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        else:
            self.folder = local_files.open_parent(self.root, self.below, make=True)
        try:
            return _TemporaryFile(self.temporary, "xb", opener=self._open)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, flags: int) -> int:
        return os.open(self._name(path), flags | os.O_CLOEXEC, 0o666, dir_fd=self.folder)

    def _name(self, path: str) -> str:
        return path if self.folder is None else os.path.basename(path)

    def replace(self) -> None:
        """Renames the file to its final name. Replaces an existing file."""
        names = self._name(self.temporary), self._name(self.path)
        os.replace(*names, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def link(self) -> None:
        """Adds the final name to the file. Raises ``FileExistsError``."""
        names = self._name(self.temporary), self._name(self.path)
        os.link(*names, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def close(self) -> None:
        """Removes the temporary name, and closes the folder."""
        try:
            if self.root is None or self.folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._name(self.temporary), dir_fd=self.folder)
        finally:
            if self.folder is not None:
                os.close(self.folder)
                self.folder = None


class _TemporaryFile(io.FileIO):
    """A file whose failed writes raise ``StorageError`` with its name."""

    def write(self, data: Any) -> int:
        with dataset_errors("write", str(self.name)):
            return super().write(data)
