"""A systemd that runs the units of `infra/systemd`, as the first process of namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.support import ROOT

UNITS = ROOT / "infra" / "systemd"
_PROGRAM = Path(__file__).parent / "programs" / "boot_systemd.sh"
_TARGETS = ("idle", "sysinit", "basic", "shutdown", "network-online", "timers", "time-set", "time-sync", "umount")
"""Units of systemd itself that services and timers depend on: empty ones, so that nothing else starts."""
USER_ID = 61_234
_START_S = 20.0


def can_boot() -> bool:
    """Whether this process may start one."""
    return os.geteuid() == 0 and Path("/lib/systemd/systemd").exists() and shutil.which("unshare") is not None


class SystemdMachine:
    """A context manager. Files of it are seen under `folder`: ``etc``, ``opt`` (both copied at the start) and ``var``.

    Raises:
        OSError: it does not start here, for example in a container without these rights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.group = folder, f"tessera-test-{os.getpid()}"
        self.var = folder / "var"
        units = folder / "etc" / "systemd" / "system"
        for place in (units, folder / "opt" / "tessera", *(self.var / name for name in ("lib", "cache", "tmp", "out"))):
            place.mkdir(parents=True, exist_ok=True)
        (self.var / "out").chmod(0o777)
        for path in UNITS.glob("*@.*"):
            shutil.copy(path, units)
        for name in _TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        output = "[Service]\nStandardOutput=append:/var/out/%n.log\nStandardError=inherit\n"
        self.drop_in("service", output, "output.conf")
        (folder / "passwd").write_text(f"tessera:x:{USER_ID}:{USER_ID}::/var/lib/tessera:/bin/sh\n")
        (folder / "group").write_text(f"tessera:x:{USER_ID}:\n")

    def drop_in(self, unit: str, text: str, name: str) -> None:
        """Writes a drop-in of a unit, or of all units of a type. Of two with the same name only the more special one
        is read."""
        folder = self.folder / "etc" / "systemd" / "system" / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def __enter__(self) -> Self:
        self._log = (self.folder / "systemd.log").open("wb")
        environment = {"PATH": os.environ["PATH"], "ROOT": str(ROOT), "PYTHON": sys.base_prefix}
        command = ["sh", str(_PROGRAM), str(self.folder), self.group]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + _START_S
        while True:
            if (found := self._systemd()) is not None:
                self.pid = found
                if self.systemctl("is-active", "idle.target").stdout.strip() == "active":
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise OSError((self.folder / "systemd.log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        deadline = time.monotonic() + 10
        groups = [Path("/sys/fs/cgroup") / self.group, Path("/sys/fs/cgroup/unified") / self.group]
        for group in filter(Path.exists, groups):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                _remove_group(folder, deadline)
            _remove_group(group, deadline)

    def _systemd(self) -> int | None:
        for child in psutil.Process(self._process.pid).children():
            if child.name() == "systemd":
                return child.pid
        return None

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command there, as root."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=120, check=False)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(["systemctl", "--no-pager", *arguments])

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Returns properties of a unit."""
        text = self.systemctl("show", unit, f"--property={','.join(names)}").stdout
        return dict(line.partition("=")[::2] for line in text.splitlines())

    def until_settled(self, unit: str, seconds: float = 60) -> dict[str, str]:
        """Waits until a unit has ended for good; returns its state."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.show(unit, "ActiveState", "SubState", "Result", "ExecMainStatus")
            if state["ActiveState"] in ("inactive", "failed"):
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.05)

    def output(self, unit: str) -> str:
        path = self.var / "out" / f"{unit}.log"
        return path.read_text() if path.exists() else ""


def _remove_group(folder: Path, deadline: float) -> None:
    """Removes a control group, when its processes have ended."""
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
