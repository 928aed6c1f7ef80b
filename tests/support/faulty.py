"""``faulty://<folder>/...``: a local folder behind a file system whose faults a test chooses, file by file.

Faults lie in ``<folder>/.faults.json``, so that every process sees the same ones and counts them down together. Ray's
workers know the scheme with ``ray.init(runtime_env={"worker_process_setup_hook": "tests.support.faulty.register"})``.

    faulty.plan(folder, {"a.jpg": Fault("read", "reset", times=2), "out/*": Fault("write", "full", after=1000)})

It behaves like an object store: a file is there once its upload is closed, never half.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import fnmatch
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
from botocore.exceptions import ClientError, ReadTimeoutError
from fsspec.exceptions import FSTimeoutError

Op = Literal["info", "open", "read", "write", "create", "list", "remove", "copy"]
ALWAYS = 10**9
_PLAN = ".faults.json"


def _client_error(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


ERRORS: dict[str, Callable[[], Exception]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "timeout": lambda: FSTimeoutError("timed out"),
    "asyncio": asyncio.TimeoutError,
    "read_timeout": lambda: ReadTimeoutError(endpoint_url="http://s3"),
    "slow_down": lambda: _client_error(503, "SlowDown"),
    "too_many": lambda: _client_error(429, "TooManyRequests"),
    "server": lambda: _client_error(500, "InternalError"),
    "denied": lambda: PermissionError(errno.EACCES, "Access Denied"),
    "denied_s3": lambda: _client_error(403, "AccessDenied"),
    "bad_request": lambda: _client_error(400, "InvalidArgument"),
    "missing": lambda: FileNotFoundError(errno.ENOENT, "gone"),
    "full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "quota": lambda: OSError(errno.EDQUOT, "Disk quota exceeded"),
}


@dataclass
class Fault:
    """What goes wrong with ``op`` on a file.

    Args:
        error: one of ``ERRORS``; ``short``: the bytes end after ``after``, without an error; ``lost``: it is done, and
            the answer is lost (a timeout); ``hang``: nothing for ``after`` seconds, then a timeout.
        times: how often, then it works.
        after: bytes (of a write or a read: those that still work), or seconds.
    """

    op: Op
    error: str
    times: int = ALWAYS
    after: int = 0


def plan(folder: Path | str, faults: dict[str, Fault | list[Fault]]) -> None:
    """The faults of the files below ``folder``, by glob of their relative path."""
    listed = {
        glob: [asdict(one) for one in ([each] if isinstance(each, Fault) else each)] for glob, each in faults.items()
    }
    Path(folder, _PLAN).write_text(json.dumps({"faults": listed, "calls": {}}))


def calls(folder: Path | str, op: Op, path: str) -> int:
    """How often ``op`` was asked of a file whose faults are planned."""
    return int(json.loads(Path(folder, _PLAN).read_text())["calls"].get(f"{op} {path}", 0))


@contextmanager
def _planned(folder: str) -> Iterator[dict[str, Any]]:
    with open(os.path.join(folder, _PLAN), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = json.load(file)
        yield found
        file.seek(0)
        file.truncate()
        json.dump(found, file)


class FaultyFileSystem(fsspec.AbstractFileSystem):
    protocol = "faulty"
    cachable = False
    root_marker = "/"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("faulty://").strip("/")

    def fault(self, op: Op, path: str) -> Fault | None:
        """The fault that this call meets, counted down; counted as a call either way."""
        folder = path
        while not os.path.exists(os.path.join(folder, _PLAN)):
            if folder == "/":
                return None
            folder = os.path.dirname(folder)
        name = os.path.relpath(path, folder)
        with _planned(folder) as found:
            key = f"{op} {name}"
            found["calls"][key] = found["calls"].get(key, 0) + 1
            for glob, faults in found["faults"].items():
                for one in faults:
                    if one["op"] == op and one["times"] > 0 and fnmatch.fnmatchcase(name, glob):
                        one["times"] -= 1
                        return Fault(**one)
        return None

    def meet(self, op: Op, path: str) -> Fault | None:
        """Raises what is planned; gives back what only the caller can do."""
        found = self.fault(op, path)
        if found is not None and found.error == "hang":
            time.sleep(found.after)
            raise FSTimeoutError
        if found is not None and found.error in ERRORS and not found.after:
            raise ERRORS[found.error]()
        return found

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self.meet("info", path)
        status = os.stat(path)
        folder = os.path.isdir(path)
        return {
            "name": path,
            "size": status.st_size,
            "type": "directory" if folder else "file",
            "mtime": status.st_mtime,
        }

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        self.meet("list", path)
        names = sorted(os.path.join(path, name) for name in os.listdir(path) if name != _PLAN)
        return [self.info(name) for name in names] if detail else names

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        self.meet("remove", path)
        (os.rmdir if os.path.isdir(path) else os.unlink)(path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        self.meet("copy", source)
        _write(target, Path(source).read_bytes())

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        with self.open(path) as file:
            file.seek(start or 0)
            return bytes(file.read(-1 if end is None else end - (start or 0)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        found = self.meet("create" if mode == "create" else "write", path)
        if mode == "create" and os.path.exists(path):
            raise FileExistsError(path)
        if found is not None and found.error in ERRORS and len(value) > found.after:
            raise ERRORS[found.error]()
        _write(path, value)
        if found is not None and found.error == "lost":
            raise FSTimeoutError

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.IOBase:
        if mode == "rb":
            self.meet("open", path)
            return _Reading(self, path)
        return _Writing(self, path)


class _Reading(io.RawIOBase):
    def __init__(self, fs: FaultyFileSystem, path: str) -> None:
        self.fs, self.path, self.file = fs, path, open(path, "rb")  # noqa: SIM115
        self.size = int(fs.info(path)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        found = self.fs.meet("read", self.path)
        if found is None:
            return self.file.read(size)
        if found.error in ERRORS:
            if self.file.tell() >= found.after:
                raise ERRORS[found.error]()
            return self.file.read(size)
        return self.file.read(found.after if size < 0 else min(size, found.after))

    def close(self) -> None:
        self.file.close()
        super().close()


class _Writing(io.RawIOBase):
    """An upload: nothing is there before it is closed."""

    closed = False

    def __init__(self, fs: FaultyFileSystem, path: str) -> None:
        self.fs, self.path, self.data = fs, path, bytearray()
        self.found = fs.meet("write", path)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        if self.found is not None and self.found.error in ERRORS and len(self.data) > self.found.after:
            raise ERRORS[self.found.error]()
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            _write(self.path, bytes(self.data))
            if self.found is not None and self.found.error == "lost":
                raise FSTimeoutError

    def discard(self) -> None:
        self.closed = True


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = Path(path).with_name(f".{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def register() -> None:
    """Once a process; importing this module has done it."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


register()
