"""One writer at a time: a lease on a dataset's version, kept alive by heartbeats.

``_leases/00000007.json`` says who holds it and when that was last renewed. Taking it over is creating the next number
exclusively, so of two that wait only one gets it, on a file system and on S3 alike. The lease keeps two runs from
doing the same work; that a dataset is never mixed does not hang on it, but on the exclusive creation of a snapshot.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, StorageError, TesseraError, one_line
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder

TTL_S = 30.0
"""A holder that has not renewed for so long is taken for dead."""
_POLL_S = 0.5
_FOLDER = "_leases"
_NUMBER = re.compile(r"([0-9]{8,15})\.json")
_MOST = 10**12
"""The number of a lease; so that there is a name for the next ones."""
_MAX_BYTES = 1 << 16
_ATTEMPTS = 20
"""So often a lease may be cleaned away while it is read."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as the file says."""

    token: str
    what: str
    """For a person: ``extract 20260101T000000-ab12``."""
    host: str
    namespace: str
    """Of process numbers: two containers may share a host's name."""
    boot: str
    """Of the running kernel: two machines may share a host's name too."""
    pid: int
    started: float
    """When the process started, by a clock that nobody sets, so that another of the same number is not taken for it."""
    renewed: float
    """Unix time, for a person; waiting goes by the file's change, not by two hosts' clocks."""
    released: bool = False

    def __str__(self) -> str:
        ago = min(max(time.time() - self.renewed, 0), 1e9)
        return f"{one_line(self.what, 80)} (process {self.pid} on {one_line(self.host, 80)}, renewed {ago:.0f} s ago)"

    @staticmethod
    def of(values: Value) -> Holder:
        """Of a lease's file. Raises ``ConfigError`` for one that no holder writes."""
        return Holder(
            token=values.member("token").string(),
            what=values.member("what").string(),
            host=values.member("host").string(),
            namespace=values.member("namespace", "").string(),
            boot=values.member("boot", "").string(),
            pid=values.member("pid").integer(),
            started=values.member("started").number(),
            renewed=values.member("renewed").number(),
            released=values.member("released", False).boolean(),
        )


class Lease:
    """A context manager: holds the lease of ``root`` while the block runs.

    Raises:
        TesseraError: another process holds it and is alive; told after at most ``ttl_s`` seconds.
    """

    def __init__(self, root: str, what: str, ttl_s: float = TTL_S) -> None:
        self.folder, self.ttl_s = DatasetFolder(root), ttl_s
        self.me = Holder(
            token=secrets.token_hex(8),
            what=what,
            host=socket.gethostname(),
            namespace=_namespace(),
            boot=_boot(),
            pid=os.getpid(),
            started=_started(os.getpid()) or 0.0,
            renewed=time.time(),
        )
        self.number = 0
        self.lost = False
        self.on_lost: Callable[[], object] = lambda: None
        """Called by the thread that renews, once another has taken the lease over."""
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        start = since = time.monotonic()
        seen = found = self._newest()
        while True:
            number, holder = found
            if holder is None or holder.released or _dead(holder) or time.monotonic() - since >= self.ttl_s:
                if self._take(number + 1):
                    break
            elif time.monotonic() - start >= self.ttl_s:
                raise TesseraError(f"{self.folder.root!r} is in use by {holder}: wait for it, or stop it")
            else:
                self._stop.wait(min(_POLL_S, self.ttl_s / 10))
            found = self._newest()
            if found != seen:
                seen, since = found, time.monotonic()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="tessera-lease")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=self.ttl_s)
        if not self.lost:
            self._write(replace(self.me, released=True))

    def check(self) -> None:
        """Raises ``TesseraError`` if another has taken the lease over: this process slept for too long."""
        if not self.lost and self._newest()[0] != self.number:
            self.lost = True
        if self.lost:
            _, holder = self._newest()
            raise TesseraError(f"the lease was taken over by {holder}; run again to continue")

    def _take(self, number: int) -> bool:
        mine = replace(self.me, renewed=time.time())
        if not self.folder.publish_new(_path(number), json.dumps(asdict(mine)).encode()):
            return False
        self.number = number
        for old in self._numbers():
            if old < number - 1:
                self.folder.remove(_path(old))
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self.ttl_s / 4):
            try:
                if self._newest()[0] != self.number:
                    self.lost = True
                    self.on_lost()
                    return
                self._write(replace(self.me, renewed=time.time()))
            except (OSError, TesseraError):  # the next heartbeat, or the commit, tells whether the place is really gone
                continue

    def _write(self, holder: Holder) -> None:
        self.folder.publish(_path(self.number), json.dumps(asdict(holder)).encode())

    def _newest(self) -> tuple[int, Holder | None]:
        for _ in range(_ATTEMPTS):
            numbers = self._numbers()
            if not numbers:
                return 0, None
            path = _path(max(numbers))
            try:
                data = self.folder.read(path, _MAX_BYTES)
            except FileNotFoundError:  # cleaned away by the next holder in this moment
                continue
            try:
                if max(numbers) > _MOST:
                    raise ConfigError("path", f"{self.folder.url(path)!r} is not the name of a lease", "")
                return max(numbers), Holder.of(strict_json.parse(data, self.folder.url(path)))
            except ConfigError as error:
                raise TesseraError(f"{error.found}: no run writes such a lease; remove it if no run goes on") from error
        raise StorageError(f"{self.folder.url(path)!r} is listed, and is not there")

    def _numbers(self) -> list[int]:
        """Of the leases, by the names that `_path` makes."""
        names = self.folder.list_files(_FOLDER, ".json")
        numbers = [int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))]
        return [number for number in numbers if _path(number).removeprefix(f"{_FOLDER}/") in names]


def _path(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _dead(holder: Holder) -> bool:
    """True if the holder was a process of this machine, since it was started, that is gone. Of others nothing can be
    said: they are waited for."""
    if (holder.host, holder.namespace, holder.boot) != (socket.gethostname(), _namespace(), _boot()):
        return False
    return _started(holder.pid) != holder.started


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _started(pid: int) -> float | None:
    """Ticks since the boot, so that setting the clock changes nothing; None if there is no such process."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else float(rest[18])
    except OSError:
        pass
    try:
        return round(psutil.Process(pid).create_time(), 1) if not Path("/proc/self/stat").exists() else None
    except psutil.NoSuchProcess:
        return None


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
