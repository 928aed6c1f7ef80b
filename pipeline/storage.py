"""Files on any fsspec URL: list, read, publish whole or not at all.

Everything that touches a path goes through here, so a local folder, S3 and memory behave alike.

``root`` of a function is a folder that ``url`` lies below. With it no symbolic link below that folder is followed
(`pipeline.local_files`); object stores have none. `pipeline.folder` gives it for all that lies in a dataset.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shutil
import stat
import tempfile
import uuid
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, BinaryIO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import local_files
from pipeline.core.errors import ConfigError, SampleError, StorageError, TesseraError, describe
from pipeline.ranged import RangedFile, reading, whole
from pipeline.retrying import denied, full, of_storage, precondition_failed, retried
from pipeline.roots import AllowedRoots

_BYTES = "bytes://"
_BUFFER = 1 << 20
_PIECE = 8 << 20
_READ = 1 << 30
"""Bytes that one call reads."""
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
MAX_READ_BYTES = 256 << 20
"""Files that are read whole are no larger: a snapshot of a dataset of billions of rows is below it."""


def split(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of ``url`` and the path on it (absolute for local paths)."""
    if url.startswith("/") and not url.endswith("/") and "::" not in url:  # fsspec takes longer than opening the file
        return LocalFileSystem(), url
    if url.startswith(_BYTES):
        return LocalFileSystem(), os.fsdecode(unquote_to_bytes(url.removeprefix(_BYTES)))
    # fsspec would read "::" as a chain of file systems, so a name could reach a scheme that is not allowed
    head, colons, tail = url.partition("::")
    fs, path = fsspec.core.url_to_fs(head)
    if colons and head.endswith("/"):
        path = f"{path}/"
    return fs, path + colons + tail


def local_uri(path: str) -> str:
    """The uri of an absolute local path: the path itself, or ``bytes:///...`` where its name is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(path))
    return path


def is_local(url: str) -> bool:
    return isinstance(split(url)[0], LocalFileSystem)


def absolute(url: str) -> str:
    """A local path made absolute, so that workers with another working directory find it; a URL as it is."""
    return url if "://" in url else os.path.abspath(url)


def in_one_process(url: str) -> bool:
    """True for a file system that no other process sees."""
    return isinstance(split(url)[0], MemoryFileSystem)


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


@dataclass(frozen=True)
class Blob:
    """One file of the corpus. ``uri`` is a local path or an fsspec URL; ``allowed`` says where it must lie.

    What fails and may pass is tried again where the file is remote (`pipeline.retrying`); local files are read as they
    are. A local file is checked by its descriptor before a byte of it is read, so that no link and no swap of names
    leads elsewhere.
    """

    uri: str
    allowed: AllowedRoots | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # what is open stays in its process

    @property
    def local(self) -> bool:
        """Whether it lies on this machine."""
        return isinstance(self._place[0], LocalFileSystem)

    def size(self) -> int:
        """Bytes of the file, asked for once. Raises ``SampleError`` (forbidden, missing, unsupported, io)."""
        return self._size

    @cached_property
    def _size(self) -> int:
        if self.local:
            return os.fstat(self._descriptor.fd).st_size
        fs, path = self._remote()
        with reading(self.uri):
            return retried(lambda: int(fs.size(path) or 0))

    def read(self, limit: int | None = None) -> bytes:
        """All bytes (or the first ``limit``). Raises ``SampleError`` (forbidden, missing, unsupported, io)."""
        if self.local:
            with reading(self.uri):
                return _read(self._descriptor.fd, self.size() if limit is None else limit)
        fs, path = self._remote()

        def read() -> bytes:
            with fs.open(path, "rb") as file:
                return whole(file, limit)

        with reading(self.uri):
            return retried(read)

    def open(self) -> BinaryIO:
        """A seekable binary file, read by ranges where it is remote. Its ``name`` is no path: ``media`` and the
        extension, which decoders take for a hint.

        Raises:
            SampleError: ``forbidden``, ``missing``, ``unsupported`` (a pipe, a device), ``io``; where it is remote,
                reading raises them too.
        """
        if self.local:
            with reading(self.uri):  # a position of its own
                raw = io.FileIO(os.open(f"/proc/self/fd/{self._descriptor.fd}", os.O_RDONLY | os.O_CLOEXEC))
            raw.name = self._hint()
            return io.BufferedReader(raw)
        fs, path = self._remote()
        with reading(self.uri):
            file = RangedFile(self.uri, retried(lambda: fs.open(path, "rb")))
        file.name = self._hint()
        return cast(BinaryIO, file)

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """Its file system and the path on it."""
        return split(self.uri)

    def _remote(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The same of a remote file, once it is allowed."""
        if self.allowed is not None:
            self.allowed.check(self.uri)
        return self._place

    @cached_property
    def _descriptor(self) -> _Descriptor:
        """The file of this machine, open and checked. It stays the same file for as long as this object is there."""
        path = self._place[1]
        if "\0" in path:
            raise SampleError("missing", f"no file can have the name {self.uri!r}")
        if self.allowed is not None:
            self.allowed.check(path)
        with reading(self.uri):
            # names the file and can do nothing else: opening it has no effect on pipes and devices
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                if self.allowed is not None:
                    self.allowed.check_real(os.readlink(f"/proc/self/fd/{handle}"), self.uri)
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise SampleError("unsupported", f"not a regular file: {self.uri}")
                return _Descriptor(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC))
            finally:
                os.close(handle)

    def _hint(self) -> str:
        extension = _EXTENSION.search(self.uri)
        return f"media{extension[0] if extension else ''}"


class _Descriptor:
    """An open file, closed with the last reference to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _read(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of an open file, or all that it has."""
    data = os.pread(fd, min(size, _READ), 0)
    if len(data) == size or not data:
        return data
    pieces, at = [data], len(data)
    while at < size and (data := os.pread(fd, min(size - at, _READ), at)):
        pieces.append(data)
        at += len(data)
    return b"".join(pieces)


class _own_place:
    """Turns what a file system raises at the dataset's own place into a ``StorageError`` of one line."""

    def __init__(self, doing: str, url: str, pass_missing: bool = False) -> None:
        self.doing, self.url, self.pass_missing = doing, url, pass_missing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        passed = (FileNotFoundError, NotADirectoryError) if self.pass_missing else ()
        if error is None or isinstance(error, (TesseraError, *passed)):
            return
        if not isinstance(error, RecursionError) and not of_storage(error):  # folders in folders, thousands deep
            return
        why = "it is full" if full(error) else "access is denied" if denied(error) else "it failed"
        raise StorageError(f"cannot {self.doing} {self.url!r}: {why} ({describe(error)})") from error


def exists(url: str, root: str | None = None) -> bool:
    with _own_place("reach", url):
        if root is not None and is_local(root):
            try:
                return bool(local_files.check(*_below(url, root)))
            except FileNotFoundError:
                return False
        return retried(lambda: _exists(url))


def is_file(url: str, root: str | None = None) -> bool:
    """Returns whether ``url`` is a file. On an object store a prefix of other keys is not."""
    fs, path = split(url)

    with _own_place("reach", url):
        try:
            if root is not None and is_local(root):
                return stat.S_ISREG(local_files.check(*_below(url, root)).st_mode)
            return bool(retried(lambda: _fresh_info(fs, path))["type"] == "file")
        except FileNotFoundError:
            return False


def _fresh_info(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Returns fsspec's info of a file or folder, without the listings that it caches."""
    fs.invalidate_cache(path)
    fs.invalidate_cache(fs._parent(path))
    found: dict[str, Any] = fs.info(path)
    return found


def _below(url: str, root: str) -> tuple[str, str]:
    """The path of the local folder ``root``, and the rest of ``url``."""
    return split(root)[1], url.removeprefix(root.rstrip("/")).strip("/")


def _exists(url: str) -> bool:
    fs, path = split(url)
    fs.invalidate_cache(fs._parent(path))  # a listing of before knows nothing of what others wrote since
    if type(fs).exists is not fsspec.AbstractFileSystem.exists:
        return bool(fs.exists(path))
    try:  # fsspec's own would take any error for "not there"
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def read_bytes(url: str, limit: int = MAX_READ_BYTES, root: str | None = None) -> bytes:
    """All of a file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it is larger, or cannot be read.
    """
    fs, path = split(url)

    def read() -> bytes:
        info = _fresh_info(fs, path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
        size = int(info["size"])
        # object stores reject a range of an empty file; the file may have been replaced since
        data: bytes = fs.cat_file(path, start=0, end=limit + 1) if 0 < size <= limit else b""
        if max(size, len(data)) > limit:
            raise StorageError(f"{url!r} has more than {limit} bytes")
        return data

    with _own_place("read", url, pass_missing=True):
        if isinstance(fs, LocalFileSystem):
            below = os.path.split(os.path.realpath(path)) if root is None else _below(url, root)
            return local_files.read(*below, limit)
        return retried(read)


def list_files(url: str, suffix: str = "", root: str | None = None) -> list[str]:
    """Names of the files directly inside the folder ``url``, sorted; empty if there is none. With ``root`` links and
    special files count as files."""
    try:
        found = _entries(url, root)
    except FileNotFoundError:
        return []
    return sorted(name for name, kind in found if kind == "file" and name.endswith(suffix))


def list_folders(url: str, root: str | None = None) -> list[str]:
    """Names of the folders directly inside the folder ``url``, sorted; empty if there is none. With ``root`` a link is
    none."""
    try:
        found = _entries(url, root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name, kind in found if kind == "directory")


def _entries(url: str, root: str | None) -> list[tuple[str, str]]:
    """(name, ``file``, ``directory`` or another kind) of each entry of a folder. Raises as `entries` does."""
    if root is not None and is_local(root):
        with _own_place("list", url, pass_missing=True):
            found = local_files.entries(*_below(url, root))
        return [(name, "directory" if is_folder else "file") for name, is_folder in found]
    return [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry["type"]) for entry in entries(url)]


def entries(url: str) -> list[dict[str, Any]]:
    """What fsspec tells of each entry of a folder, as it is now.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: a file.
        StorageError: it cannot be listed.
    """
    fs, path = split(url)

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = fs.ls(path, detail=True, refresh=True)
        return found

    with _own_place("list", url, pass_missing=True):
        return retried(listed)


def remove(url: str, root: str | None = None) -> None:
    """Delete a file; nothing happens if it is not there."""
    fs, path = split(url)
    with _own_place("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove(*_below(url, root))
        else:
            retried(lambda: fs.rm_file(path))


def move(source: str, target: str, root: str | None = None) -> None:
    """Move a file within one file system; moved already is fine, so that it may be done twice, by anybody."""
    fs, path = split(source)
    to = split(target)[1]
    with _own_place("move", source):
        try:
            if root is not None and isinstance(fs, LocalFileSystem):
                folder, below = _below(source, root)
                local_files.move(folder, below, _below(target, root)[1])
            elif isinstance(fs, LocalFileSystem):
                os.makedirs(os.path.dirname(to), exist_ok=True)
                os.replace(path, to)
            else:
                retried(lambda: fs.cp_file(path, to))  # `copy` expands globs, and treats prefixes as folders
                retried(lambda: fs.rm_file(path))
        except FileNotFoundError:
            if not is_file(target, root):
                raise


def remove_folder(url: str, root: str | None = None) -> None:
    """Delete a folder with all that is in it; nothing happens if it is not there."""
    fs, path = split(url)
    with _own_place("remove", url), contextlib.suppress(FileNotFoundError):
        if root is not None and isinstance(fs, LocalFileSystem):
            local_files.remove_folder(*_below(url, root))
        else:
            retried(lambda: _remove_tree(fs, path))


def _remove_tree(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Deletes a folder with all files in it. ``path`` may contain glob characters, which `rm` would expand."""
    if not glob.has_magic(path):
        fs.rm(path, recursive=True)
        return
    fs.invalidate_cache(path)
    for file in fs.find(path):
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(file)


def publish(url: str, data: bytes, root: str | None = None) -> None:
    """Write ``data`` to ``url`` so that no reader ever sees half of it. Overwrites. Raises ``StorageError``."""
    if is_local(url):
        with publishing(url, root) as file:
            file.write(data)
        return
    fs, path = split(url)
    with _own_place("write", url):
        retried(lambda: fs.pipe_file(path, data))


def publish_new(url: str, data: bytes, root: str | None = None) -> bool:
    """Create ``url`` with ``data`` exclusively; False if another was first. This is the commit.

    ``data`` must be the writer's alone (a run's id, a token): an answer that was lost on the way makes an object store,
    asked again by us or by its own library, say that the file is there already, and only what is in it tells whose it
    is. A local link either is made or is not, and says which.

    Raises:
        StorageError: it could not be tried, or nobody answered whether it was done.
    """
    with _own_place("write", url):
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


def check_writable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless files can be written into the folder ``url``, and one that is there
    cannot be created again, on which every commit stands. Leaves nothing there."""
    probe = join(url, f".writable-{uuid.uuid4().hex}")
    try:
        fs, path = split(probe)
        new = [path] if isinstance(fs, LocalFileSystem) else []
        while new and not os.path.exists(os.path.dirname(new[-1])):
            new.append(os.path.dirname(new[-1]))
        try:
            publish(probe, b"")
            again = publish_new(probe, b"second")
        except BaseException:
            with contextlib.suppress(Exception):  # the first is told
                fs.rm_file(path)
            raise
        retried(lambda: fs.rm_file(path))
        with contextlib.suppress(OSError):  # another run begins there
            for folder in new[1:]:
                os.rmdir(folder)
    except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
        told = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        raise ConfigError(
            where, f"cannot write to {url!r} ({describe(told)})", "give a folder that can be written"
        ) from error
    if again:
        raise ConfigError(
            where,
            f"{url!r} lets a second writer create a file that is there",
            "a file system, or an object store that keeps to If-None-Match",
        )


class publishing:
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
        with _own_place("write", self.new.temporary):
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
                with _own_place("write", self.url):
                    os.fsync(self.file.fileno())
                    self.file.close()
                    self.new.replace()
            else:
                self.file.flush()
                with _own_place("write", self.url):
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
        with _own_place("write", str(self.name)):
            return super().write(data)


def check_readable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless ``url`` can be reached and is there."""
    try:
        found = retried(lambda: _exists(url))
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError(where, f"cannot reach {url!r} ({describe(error)})", "give a path that can be read") from error
    if not found:
        raise ConfigError(where, f"{url!r} does not exist", "give a folder, a file or a glob that is there")
