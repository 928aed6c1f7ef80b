"""Files on any fsspec URL: list, read, publish whole or not at all.

Everything that touches a path goes through here, so a local folder, S3 and memory behave alike.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import ConfigError, SampleError, describe

_BYTES = "bytes://"


def split(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of ``url`` and the path on it (absolute for local paths)."""
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
    """One file of the corpus. ``uri`` is a local path or an fsspec URL."""

    uri: str

    @property
    def local(self) -> bool:
        """Whether it lies on this machine."""
        return isinstance(split(self.uri)[0], LocalFileSystem)

    def local_path(self) -> str | None:
        """The path on this machine, or None: a remote file, or a name that is not UTF-8 (libraries refuse it)."""
        return split(self.uri)[1] if self.local and not self.uri.startswith(_BYTES) else None

    def size(self) -> int:
        """Bytes of the file. Raises ``SampleError`` (missing, io)."""
        fs, path = split(self.uri)
        with reading(self.uri):
            self._check_regular(fs, path)
            return int(fs.size(path) or 0)

    def read(self, limit: int | None = None) -> bytes:
        """All bytes (or the first ``limit``). Raises ``SampleError`` (missing, io)."""
        with reading(self.uri), self._open() as file:
            return file.read(-1 if limit is None else limit)

    def open(self) -> BinaryIO:
        """A seekable binary file, read by ranges where it is remote."""
        with reading(self.uri):
            return self._open()

    def _open(self) -> BinaryIO:
        fs, path = split(self.uri)
        self._check_regular(fs, path)
        return cast(BinaryIO, fs.open(path, "rb"))

    def _check_regular(self, fs: fsspec.AbstractFileSystem, path: str) -> None:
        """A pipe would wait for ever, a device may have no end."""
        if isinstance(fs, LocalFileSystem) and not stat.S_ISREG(os.stat(path).st_mode):
            raise SampleError("unsupported", f"not a regular file: {self.uri}")


class reading:
    """Turns what a file system raises into a ``SampleError`` that names the file."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SampleError("missing", f"no such file: {self.uri}") from error
        if isinstance(error, OSError):
            raise SampleError("io", describe(error)) from error


def exists(url: str) -> bool:
    fs, path = split(url)
    return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    fs, path = split(url)
    return cast(bytes, fs.cat_file(path))


def list_files(url: str, suffix: str = "") -> list[str]:
    """Names of the files directly inside the folder ``url``, sorted; empty if there is none."""
    fs, path = split(url)
    try:
        found = fs.ls(path, detail=True, refresh=True)
    except FileNotFoundError:
        return []
    names = (entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")
    return sorted(name for name in names if name.endswith(suffix))


def list_folders(url: str) -> list[str]:
    """Names of the folders directly inside the folder ``url``, sorted; empty if there is none."""
    fs, path = split(url)
    try:
        entries = fs.ls(path, detail=True, refresh=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")


def remove(url: str) -> None:
    """Delete a file; nothing happens if it is not there."""
    fs, path = split(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def move(source: str, target: str) -> None:
    """Move a file within one file system; moved already is fine, so that it may be done twice, by anybody."""
    fs, path = split(source)
    to = split(target)[1]
    try:
        if isinstance(fs, LocalFileSystem):
            os.makedirs(os.path.dirname(to), exist_ok=True)
            os.replace(path, to)
        else:
            fs.copy(path, to)
            fs.rm_file(path)
    except FileNotFoundError:
        if not fs.exists(to):
            raise


def remove_folder(url: str) -> None:
    """Delete a folder with all that is in it; nothing happens if it is not there."""
    fs, path = split(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def publish(url: str, data: bytes) -> None:
    """Write ``data`` to ``url`` so that no reader ever sees half of it. Overwrites."""
    with publishing(url) as file:
        file.write(data)


def publish_new(url: str, data: bytes) -> bool:
    """Create ``url`` with ``data`` exclusively; False if it is there already. This is the commit."""
    fs, path = split(url)
    if isinstance(fs, LocalFileSystem):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        return True
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def check_writable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless files can be written into the folder ``url``. Leaves nothing there."""
    probe = join(url, f".writable-{uuid.uuid4().hex}")
    try:
        fs, path = split(probe)
        new = [path] if isinstance(fs, LocalFileSystem) else []
        while new and not os.path.exists(os.path.dirname(new[-1])):
            new.append(os.path.dirname(new[-1]))
        publish(probe, b"")
        fs.rm_file(path)
        for folder in new[1:]:
            os.rmdir(folder)
    except Exception as error:  # any backend may raise anything here: permissions, quotas, DNS, credentials
        raise ConfigError(
            where, f"cannot write to {url!r} ({describe(error)})", "give a folder that can be written"
        ) from error


class publishing:
    """A binary file that appears under ``url`` when the block ends well, and never otherwise."""

    def __init__(self, url: str) -> None:
        self.fs, self.path = split(url)
        self.local = isinstance(self.fs, LocalFileSystem)
        self.temporary = f"{self.path}.{uuid.uuid4().hex}.tmp" if self.local else self.path

    def __enter__(self) -> BinaryIO:
        if self.local:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.file: BinaryIO = open(self.temporary, "wb")
        else:
            self.file = cast(BinaryIO, self.fs.open(self.path, "wb"))
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._give_up()
        elif self.local:
            try:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                os.replace(self.temporary, self.path)
            except BaseException:
                self._give_up()
                raise
        else:
            self.file.close()

    def _give_up(self) -> None:
        if self.local:
            self.file.close()
            if os.path.exists(self.temporary):
                os.unlink(self.temporary)
        else:
            self.file.discard()  # type: ignore[attr-defined]  # fsspec's: an upload that is never completed


def check_readable(url: str, where: str) -> None:
    """Raises ``ConfigError`` at ``where`` unless ``url`` can be reached and is there."""
    try:
        found = exists(url)
    except Exception as error:  # any backend may raise anything here: DNS, credentials, TLS
        raise ConfigError(where, f"cannot reach {url!r} ({describe(error)})", "give a path that can be read") from error
    if not found:
        raise ConfigError(where, f"{url!r} does not exist", "give a folder, a file or a glob that is there")
