"""What must hold while one input is tried."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.errors import TesseraError

SECRET = "canary-6f1d"
"""In each file outside: what an input gives back must not hold it."""
_MB = 1 << 20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.mkdir": [(0, 2)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
    "os.truncate": [(0, None)],
}
"""Audit event -> where its arguments have a path, and the descriptor of the folder that it is relative to."""
_NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "code.__new__")
_FREE = ("/dev/null", "/dev/shm/", "/proc/self/")


class Oracles:
    """Watches this process. One object a process: audit hooks stay.

    Args:
        box: the folder of the input, which may change.
        outside: a folder beside it, which may not.
        seconds: of this process's CPU for one input; six times as many by the clock. Then the process ends.
        memory_mb: by which an input may make this process's peak grow.
        starts: whether the stages' own processes may start.
    """

    def __init__(self, box: Path, outside: Path, seconds: float, memory_mb: int, starts: bool = False) -> None:
        self.box, self.outside, self.seconds, self.memory_mb, self.starts = box, outside, seconds, memory_mb, starts
        self.seen: list[str] = []
        self.at_work = False
        (outside / "_runs").mkdir(parents=True)
        for name in ("secret.txt", "key.parquet", "_runs/x.json"):
            (outside / name).write_text(SECRET)
        self.before = _tree(outside)
        sys.addaudithook(self._audit)

    def tried(self, work: Callable[[], Any]) -> tuple[str, list[str]]:
        """("accepted", "refused" or "failed"; what did not hold) of ``work``, whose result's repr is looked at."""
        problems: list[str] = []
        self.seen.clear()
        _reset_peak()
        start = _peak_mb()
        soft = resource.getrusage(resource.RUSAGE_SELF)
        used = int(soft.ru_utime + soft.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + int(self.seconds) + 1, resource.RLIM_INFINITY))
        faulthandler.dump_traceback_later(self.seconds * 6, exit=True)
        reported, outcome = "", "accepted"
        self.at_work = True
        try:
            reported = repr(work())
        except TesseraError as error:
            reported, outcome = str(error), "refused"
            if "\n" in reported or not reported.isprintable():
                problems.append(f"not one visible line: {type(error).__name__} from {_place(error)}: {reported!r:.300}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            problems.append(f"{type(error).__name__} at {_place(error)}: {str(error)!r:.300}")
        finally:
            self.at_work = False
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        grown = _peak_mb() - start
        if grown > self.memory_mb:
            problems.append(f"memory grew by more than {self.memory_mb} MB: {grown} MB")
        if SECRET in reported:
            problems.append(f"it read a file outside: {reported!r:.200}")
        problems += dict.fromkeys(self.seen)
        if (after := _tree(self.outside)) != self.before:
            names = sorted({name for name, _ in {*after.items()} ^ {*self.before.items()}})
            problems.append(f"it changed outside: {', '.join(names)}")
            self.before = after
        return ("failed" if problems else outcome), problems

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.at_work:
            return
        if event in _NEVER and not self.starts:
            self.seen.append(f"{event}: {arguments!r:.120} at {_here()}")
        elif event == "socket.connect" and not self.starts:
            self.seen.append(f"it connected: {arguments[1]!r:.80} at {_here()}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and (arguments[2] or 0) & _WRITES:
            path = os.fsdecode(arguments[0])
            if os.path.isabs(path):  # else it may be relative to a folder that is open, which the event does not say
                self._inside(event, path)
        for path_at, folder_at in _PATHS.get(event, ()):
            path, folder = arguments[path_at], -1 if folder_at is None else arguments[folder_at]
            if isinstance(path, str | bytes):
                base = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
                self._inside(event, os.path.join(base, os.fsdecode(path)))

    def _inside(self, event: str, path: str) -> None:
        """Raises ``PermissionError`` for a path elsewhere: what runs here may be wrong, and must not do harm."""
        whole = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        mine = (str(self.box), f"{self.box}-tmp")
        if whole not in mine and not whole.startswith((f"{mine[0]}/", f"{mine[1]}/", *_FREE)):
            self.seen.append(f"{event} outside: {whole!r:.200} at {_here()}")
            raise PermissionError(f"{event} outside of the folder of this input")


def _tree(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = f"{stat.st_mode} {hashlib.sha256(content).hexdigest()}"
    return found


def _place(error: BaseException) -> str:
    """The last line of ours that it passed, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "/pipeline/" in one.filename]
    shown = [one for one in (ours[-1:] + frames[-1:]) if one]
    return " < ".join(dict.fromkeys(f"{one.filename.rsplit('/', 2)[-1]}:{one.name}" for one in reversed(shown)))


def _here() -> str:
    ours = [one for one in traceback.extract_stack()[:-2] if "/pipeline/" in one.filename]
    return f"{ours[-1].filename.rsplit('/', 1)[-1]}:{ours[-1].name}" if ours else "?"


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak_mb() -> int:
    with open("/proc/self/status") as file:
        (line,) = [one for one in file if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 // _MB
