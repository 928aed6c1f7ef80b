"""Publishes files atomically: a file appears complete, or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from typing import BinaryIO, cast

from pipeline.storage._dataset_errors import dataset_errors
from pipeline.storage._new_file import NewFile
from pipeline.storage.files import read_bytes
from pipeline.storage.retry import precondition_failed, retried
from pipeline.storage.urls import is_local, split

_BUFFER_BYTES = 1 << 20
_COPY_BYTES = 8 << 20
"""Bytes of an upload that are copied at a time."""


def publish(url: str, data: bytes, root: str | None = None) -> None:
    """Writes ``data`` to ``url`` atomically, so that no reader sees a part of it. Overwrites. Raises
    ``StorageError``."""
    if is_local(url):
        with AtomicFile(url, root) as file:
            file.write(data)
        return
    fs, path = split(url)
    with dataset_errors("write", url):
        retried(lambda: fs.pipe_file(path, data))


def publish_new(url: str, data: bytes, root: str | None = None) -> bool:
    """Creates ``url`` with ``data`` exclusively. Commits of a dataset use it.

    ``data`` must be unique to the writer (it contains a run's id or a token). If the response of an object store is
    lost, the repeated request fails because the file exists, and only its content shows which writer created it. A
    local file is created by a hard link, whose result is unambiguous.

    Returns:
        False if the file exists already.

    Raises:
        StorageError: the request failed, or its result is unknown.
    """
    with dataset_errors("write", url):
        if is_local(url):
            return _link_new(NewFile(url, root), data)
        return _create_new(url, data)


def _link_new(new: NewFile, data: bytes) -> bool:
    """Creates a local file exclusively. Returns False if it exists already."""
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
    """Creates a file on an object store exclusively. Returns False if it exists with other content."""
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
    """Context manager of a binary file that appears under ``url`` when the block ends without an error.

    A file for an object store is first written to the temporary folder of this machine (``TMPDIR``), so that a failed
    upload can be repeated from the start. The temporary file has no name, so that it is removed with the process. It
    costs no time: s3fs would upload the parts one after the other while they are written.

    Raises:
        StorageError: the storage is full, denied or out of reach.
    """

    def __init__(self, url: str, root: str | None = None) -> None:
        self.url, self.local = url, is_local(url)
        if self.local:
            self.new = NewFile(url, root)
        else:
            self.new = NewFile(os.path.join(tempfile.gettempdir(), url.rpartition("/")[2]), None)

    def __enter__(self) -> BinaryIO:
        with dataset_errors("write", self.new.temporary):
            self.file: BinaryIO = cast(BinaryIO, io.BufferedWriter(self.new.open(), _BUFFER_BYTES))
            if not self.local:
                self.new.close()
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self._abandon()
            elif self.local:
                self.file.flush()
                with dataset_errors("write", self.url):
                    os.fsync(self.file.fileno())
                    self.file.close()
                    self.new.replace()
            else:
                self.file.flush()
                with dataset_errors("write", self.url):
                    retried(self._upload)
                self.file.close()
        except BaseException:
            self._abandon()
            raise
        finally:
            self.new.close()

    def _abandon(self) -> None:
        """Closes the file and ignores the error of its buffer, which may still be unwritable."""
        with contextlib.suppress(OSError):
            self.file.close()

    def _upload(self) -> None:
        fs, path = split(self.url)
        remote = fs.open(path, "wb")
        try:
            with open(f"/proc/self/fd/{self.file.fileno()}", "rb") as source:
                shutil.copyfileobj(source, remote, _COPY_BYTES)
            remote.close()
        except BaseException:
            with contextlib.suppress(Exception):  # it may fail as the upload did; the first error is raised
                remote.discard()  # cancels the upload in fsspec
            remote.closed = True  # otherwise garbage collection would complete the upload
            raise
