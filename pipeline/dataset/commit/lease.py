"""The lease of a dataset's version: a lock that its holder renews by heartbeats, so that one writer works at a time.

``_leases/00000007.json`` records the holder and the time of the last renewal. To take the lease over, a process creates
the next number exclusively, so only one of several waiting processes gets it, on a local file system and on S3. The
lease only prevents two runs from doing the same work. The consistency of the dataset does not depend on it, but on the
exclusive creation of snapshots.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Self

from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, StorageError, TesseraError, one_line
from pipeline.core.strict_json import Value
from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.dataset.commit._processes import boot_id, pid_namespace, started_at
from pipeline.dataset.commit.folder import DatasetFolder

TTL_S = 30.0
"""Seconds without a renewal after which a holder counts as dead."""
_POLL_S = 0.5
_FOLDER = "_leases"
_NUMBER = re.compile(r"([0-9]{8,15})\.json")
_MAX_NUMBER = 10**12
"""Highest number of a lease. It leaves room for the names of further ones."""
_MAX_BYTES = 1 << 16
_ATTEMPTS = 20
"""How often reading is repeated if the next holder deletes the lease that is being read."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease, as recorded in the lease's file."""

    token: str
    what: str
    """Description for messages: ``extract 20260101T000000-ab12``."""
    host: str
    namespace: str
    """PID namespace: two containers may have the same host name."""
    boot: str
    """Id of the running kernel's boot: two machines may have the same host name."""
    pid: int
    started: float
    """Start time of the process on a monotonic clock. It distinguishes the process from a later one of the same pid."""
    renewed: float
    """Unix time, for messages only: a waiting process checks whether the file changes, and compares no clocks."""
    released: bool = False

    def __str__(self) -> str:
        ago = min(max(time.time() - self.renewed, 0), 1e9)
        return f"{one_line(self.what, 80)} (process {self.pid} on {one_line(self.host, 80)}, renewed {ago:.0f} s ago)"

    @staticmethod
    def of(values: Value) -> Holder:
        """Parses the file of a lease. Raises ``ConfigError`` for values that no holder writes."""
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


class InUse(TesseraError):
    """Another live process holds the lease."""


class Lease:
    """A context manager: holds the lease of ``root`` while the block runs.

    Args:
        root: the folder.
        what: description of the holder, for messages.
        ttl_s: seconds without a renewal after which it expires.
        wait_s: how long to wait for another live process. It is at least ``ttl_s``.

    Raises:
        InUse: another live process holds it.
    """

    def __init__(self, root: str, what: str, ttl_s: float = TTL_S, wait_s: float = 0.0) -> None:
        self.folder, self.ttl_s, self.wait_s = DatasetFolder(root), ttl_s, max(ttl_s, wait_s)
        self.me = Holder(
            token=secrets.token_hex(8),
            what=what,
            host=socket.gethostname(),
            namespace=pid_namespace(),
            boot=boot_id(),
            pid=os.getpid(),
            started=started_at(os.getpid()) or 0.0,
            renewed=time.time(),
        )
        self.number = 0
        self.lost = False
        self.on_lost: Callable[[], object] = lambda: None
        """Called by the heartbeat thread after another process has taken the lease over."""
        self._heartbeat = PeriodicTask(self._renew, ttl_s / 4, "tessera-lease", patience_s=ttl_s)

    def __enter__(self) -> Self:
        start = last_change = time.monotonic()
        seen = found = self._newest()
        while True:
            number, holder = found
            if holder is None or holder.released or _is_dead(holder) or time.monotonic() - last_change >= self.ttl_s:
                if self._take(number + 1):
                    break
            elif time.monotonic() - start >= self.wait_s:
                raise InUse(f"{self.folder.root!r} is in use by {holder}: wait for it, or stop it")
            else:
                time.sleep(min(_POLL_S, self.ttl_s / 10))
            found = self._newest()
            if found != seen:
                seen, last_change = found, time.monotonic()
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.close()
        if not self.lost:
            # a lease that is not released expires: the error of the block is worth more than that
            with contextlib.suppress(*([OSError, TesseraError] if error is not None else [])):
                self._write(replace(self.me, released=True))

    def check(self) -> None:
        """Raises ``TesseraError`` if the lease is lost: another process took it over, since this one was suspended for
        too long; or the dataset's files were deleted."""
        if not self.lost and self._newest()[0] != self.number:
            self.lost = True
        if self.lost:
            _, holder = self._newest()
            if holder is None:
                raise TesseraError(
                    f"{self.folder.root!r} was deleted during the run, or its leases were: nothing was committed; "
                    "find out what deletes it, then run again"
                )
            raise TesseraError(f"the lease was taken over by {holder}; run again to continue")

    def _take(self, number: int) -> bool:
        """Creates the lease of ``number`` exclusively. Returns False if another process was first."""
        mine = replace(self.me, renewed=time.time())
        if not self.folder.publish_new(_path(number), json.dumps(asdict(mine)).encode()):
            return False
        self.number = number
        for old in self._numbers():
            if old < number - 1:
                self.folder.remove(_path(old))
        return True

    def _renew(self) -> bool:
        """Renews the lease, or returns True if it is lost. One heartbeat."""
        with contextlib.suppress(OSError, TesseraError):  # maybe temporary: a later heartbeat tries again
            if self._newest()[0] != self.number:
                self.lost = True
                self.on_lost()
                return True
            self._write(replace(self.me, renewed=time.time()))
        return False

    def _write(self, holder: Holder) -> None:
        self.folder.publish(_path(self.number), json.dumps(asdict(holder)).encode())

    def _newest(self) -> tuple[int, Holder | None]:
        """Returns number and holder of the newest lease; (0, None) if there is none.

        Raises:
            TesseraError: a lease that no run writes.
        """
        for _ in range(_ATTEMPTS):
            numbers = self._numbers()
            if not numbers:
                return 0, None
            path = _path(max(numbers))
            try:
                data = self.folder.read(path, _MAX_BYTES)
            except FileNotFoundError:  # deleted by the next holder in the meantime
                continue
            try:
                if max(numbers) > _MAX_NUMBER:
                    raise ConfigError("path", f"{self.folder.url(path)!r} is not the name of a lease", "")
                return max(numbers), Holder.of(strict_json.parse(data, self.folder.url(path)))
            except ConfigError as error:
                raise TesseraError(f"{error.found}: no run writes such a lease; remove it if no run goes on") from error
        raise StorageError(f"{self.folder.url(path)!r} is listed, and is not there")

    def _numbers(self) -> list[int]:
        """Returns the numbers of the leases. Names that `_path` does not produce are ignored."""
        names = self.folder.list_files(_FOLDER, ".json")
        numbers = [int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))]
        return [number for number in numbers if _path(number).removeprefix(f"{_FOLDER}/") in names]


def _path(number: int) -> str:
    return f"{_FOLDER}/{number:08d}.json"


def _is_dead(holder: Holder) -> bool:
    """Returns whether the holder was a process of this machine and boot that has ended. For a holder elsewhere this
    cannot be known, and False is returned: the caller waits."""
    if (holder.host, holder.namespace, holder.boot) != (socket.gethostname(), pid_namespace(), boot_id()):
        return False
    return started_at(holder.pid) != holder.started
