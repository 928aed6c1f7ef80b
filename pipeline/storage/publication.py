"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import uuid
from typing import Any, BinaryIO, cast

from pipeline.storage import local_files
from pipeline.storage._dataset_errors import _below, _dataset_errors
from pipeline.storage.files import read_bytes
from pipeline.storage.retry import precondition_failed, retried
from pipeline.storage.urls import is_local, split

_BUFFER = 1 << 20
_PIECE = 8 << 20


def publish(url: str, data: bytes, root: str | None = None) -> None:
    """Write ``data`` to ``url`` so that no reader ever sees half of it. Overwrites. Raises ``StorageError``."""
    if is_local(url):
        with AtomicFile(url, root) as file:
            file.write(data)
        return
    fs, path = split(url)
    with _dataset_errors("write", url):
        retried(lambda: fs.pipe_file(path, data))


def publish_new(url: str, data: bytes, root: str | None = None) -> bool:
    """Create ``url`` with ``data`` exclusively; False if another was first. This is the commit.

    ``data`` must be the writer's alone (a run's id, a token): an answer that was lost on the way makes an object store,
    asked again by us or by its own library, say that the file is there already, and only what is in it tells whose it
    is. A local link either is made or is not, and says which.

    Raises:
        StorageError: it could not be tried, or nobody answered whether it was done.
    """
    with _dataset_errors("write", url):
        if is_local(url):
            return _link_new(_NewFile(url, root), data)
        return _create_new(url, data)


class _NewFile:
    """A local file that is written under a temporary name, in a folder which is made for it and, below ``root``,
    reached without following a link."""

    def __init__(self, url: str, root: str | None) -> None:
        self.path = split(url)[1]
        self.root: str | None = None
        if root is not None:
            self.root, self.below = _below(url, root)
        self.temporary = f"{self.path}.{uuid.uuid4().hex}.tmp"
        self.folder: int | None = None
        """The open folder that holds it, or None: names are whole paths."""

    def open(self) -> _Temporary:
        try:
            return self._opened()
        except FileNotFoundError:  # another process may remove a folder until something lies there: `check_writable`
            self.close()
            return self._opened()

    def _opened(self) -> _Temporary:
        if self.root is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        else:
            self.folder = local_files.open_parent(self.root, self.below, make=True)
        try:
            return _Temporary(self.temporary, "xb", opener=self._open)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, flags: int) -> int:
        return os.open(self._name(path), flags | os.O_CLOEXEC, 0o666, dir_fd=self.folder)

    def _name(self, path: str) -> str:
        return path if self.folder is None else os.path.basename(path)

    def replace(self) -> None:
        """Give the file its name, and with it take the place of one that is there."""
        names = self._name(self.temporary), self._name(self.path)
        os.replace(*names, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def link(self) -> None:
        """Give the file its name too. Raises ``FileExistsError``."""
        names = self._name(self.temporary), self._name(self.path)
        os.link(*names, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def close(self) -> None:
        """Remove the temporary name."""
        try:
            if self.root is None or self.folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._name(self.temporary), dir_fd=self.folder)
        finally:
            if self.folder is not None:
                os.close(self.folder)
                self.folder = None


def _link_new(new: _NewFile, data: bytes) -> bool:
    try:
        with io.BufferedWriter(new.open()) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            new.link()
        except FileExistsError:
            return False
    finally:
        new.close()
    return True


def _create_new(url: str, data: bytes) -> bool:
    fs, path = split(url)

    def create() -> bool:
        try:
            fs.pipe_file(path, data, mode="create")
        except Exception as error:
            if not isinstance(error, FileExistsError) and not precondition_failed(error):
                raise
            return False
        return True

    return retried(create) or read_bytes(url) == data


class AtomicFile:
    """A binary file that appears under ``url`` when the block ends well, and never otherwise.

    What goes to an object store is written to this machine's temporary folder first (``TMPDIR``), so that an upload
    which breaks off is done again whole; without a name, so that it goes with this process, however that ends. s3fs
    sends its parts while they are written, one after the other: nothing is lost by waiting.

    Raises:
        StorageError: the place is full, denied, out of reach.
    """

    def __init__(self, url: str, root: str | None = None) -> None:
        self.url, self.local = url, is_local(url)
        if self.local:
            self.new = _NewFile(url, root)
        else:
            self.new = _NewFile(os.path.join(tempfile.gettempdir(), url.rpartition("/")[2]), None)

    def __enter__(self) -> BinaryIO:
        with _dataset_errors("write", self.new.temporary):
            self.file: BinaryIO = cast(BinaryIO, io.BufferedWriter(self.new.open(), _BUFFER))
            if not self.local:
                self.new.close()
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self._abandon()
            elif self.local:
                self.file.flush()
                with _dataset_errors("write", self.url):
                    os.fsync(self.file.fileno())
                    self.file.close()
                    self.new.replace()
            else:
                self.file.flush()
                with _dataset_errors("write", self.url):
                    retried(self._upload)
                self.file.close()
        except BaseException:
            self._abandon()
            raise
        finally:
            self.new.close()

    def _abandon(self) -> None:
        """Close without a second complaint: a buffer that could not be written still waits in the file."""
        with contextlib.suppress(OSError):
            self.file.close()

    def _upload(self) -> None:
        fs, path = split(self.url)
        remote = fs.open(path, "wb")
        try:
            with open(f"/proc/self/fd/{self.file.fileno()}", "rb") as source:
                shutil.copyfileobj(source, remote, _PIECE)
            remote.close()
        except BaseException:
            with contextlib.suppress(Exception):  # what broke the upload breaks this too; the first is told
                remote.discard()  # fsspec's: an upload that is never completed
            remote.closed = True  # or its collection would complete it
            raise


class _Temporary(io.FileIO):
    """A file whose every failing write says where."""

    def write(self, data: Any) -> int:
        with _dataset_errors("write", str(self.name)):
            return super().write(data)
