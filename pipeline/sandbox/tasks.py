"""What a process is at, noted in memory that its parent shares: the note survives whatever ends the process."""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.core.errors import FailureKind, SampleError, StageName

SLOT_BYTES = mmap.PAGESIZE
_SLOT = struct.Struct("<QqqQBHB")
_WAITED_AT = _SLOT.size - 1
_NOTHING_AT_WORK = bytes(8)
_NO_PART = -(1 << 63)
_STEPS: tuple[StageName, ...] = ("probe", "decode", "tokenize")
_NUMBERS: dict[StageName, int] = {step: number for number, step in enumerate(_STEPS)}
_KEY_BYTES = 256
_PAGE = mmap.PAGESIZE
_READ_EACH_S = 0.02


class Task(NamedTuple):
    """One thing that a stage is about to ask of native code.

    Args:
        row: in the table that the stage was given.
        step: of the stage.
        feature: the feature, or the role of the file that is opened.
        source: the file's uri, or the sample's id where there is none.
        part: the window, where it decides what is done; None: the same work in every window.
    """

    row: int
    step: StageName
    feature: str
    source: str
    part: int | None = None

    def file_key(self) -> bytes:
        """The same for all parts of one file, in whatever row of whatever table."""
        words = f"{self.step}\0{self.feature}\0{self.source}".encode(errors="surrogatepass")
        return words if len(words) <= _KEY_BYTES else hashlib.blake2b(words).digest()


TaskKey = tuple[bytes, int | None]
"""``Task.file_key`` and the part; a part of ``WHOLE_FILE`` stands for all of the file."""
WHOLE_FILE = -1

Guard = Callable[[Task], AbstractContextManager[None]]
"""What a stage enters around each work. Raises ``SampleError`` where the work is not to be tried again."""


def unguarded(work: Task) -> AbstractContextManager[None]:
    """The watch of a stage that nobody watches."""
    return _NOTHING


_NOTHING = nullcontext()


class TaskRecord(NamedTuple):
    """A work as its process noted it.

    Args:
        number: counts works.
        base_bytes: memory that the process had before this one.
        waited: the storage failed in this work, and is asked again.
    """

    number: int
    row: int
    step: StageName
    key: TaskKey
    base_bytes: int
    waited: bool = False


class TaskSlot:
    """One ``TaskRecord``, or none, in the shared file ``fd`` of ``SLOT_BYTES``: [numbers][key of the file]."""

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, SLOT_BYTES)

    def write(self, number: int, row: int, step: StageName, key: TaskKey, base_bytes: int) -> None:
        file, part = key
        size = len(file)
        self.memory[_SLOT.size : _SLOT.size + size] = file
        part = _NO_PART if part is None else part
        _SLOT.pack_into(self.memory, 0, number, row, part, base_bytes, _NUMBERS[step], size, 0)

    def wait(self) -> None:
        """The work at hand waits for its storage."""
        self.memory[_WAITED_AT] = 1

    def rest(self) -> None:
        """Nothing is at work."""
        self.memory[:8] = _NOTHING_AT_WORK

    def read(self) -> TaskRecord | None:
        number, row, part, base_bytes, step, size, waited = _SLOT.unpack_from(self.memory)
        key = (self.memory[_SLOT.size : _SLOT.size + size], None if part == _NO_PART else part)
        return TaskRecord(number, row, _STEPS[step], key, base_bytes, bool(waited)) if number else None


class Memory:
    """A process's own memory: what it does not share with files or other processes."""

    def __init__(self, pid: int | str = "self", fd: int | None = None) -> None:
        """``fd``: its open ``/proc/<pid>/statm``, which is taken over."""
        self.fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC) if fd is None else fd
        self.hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        self.resident = 0
        self.read_at = -_READ_EACH_S

    def anonymous_bytes(self) -> int:
        """Resident bytes. 0 of a process that is gone."""
        return self._read()[0]

    def _read(self) -> tuple[int, int]:
        try:
            fields = os.pread(self.fd, 256, 0).split(b" ", 6)
        except ProcessLookupError:
            return 0, 0
        return (int(fields[1]) - int(fields[2])) * _PAGE, int(fields[5]) * _PAGE

    def limit(self, more_bytes: int) -> int:
        """From now on an allocation beyond ``more_bytes`` more fails. Returns ``anonymous_bytes``.

        "More" than the process had up to 20 ms ago: to look each time would cost more than all else here.
        """
        now = time.monotonic()
        if now - self.read_at >= _READ_EACH_S:
            self.read_at = now
            self.resident, data = self._read()
            soft = data + more_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (soft if self.hard < 0 else min(soft, self.hard), self.hard))
        return self.resident

    def unlimit(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (self.hard, self.hard))
        self.read_at = -_READ_EACH_S

    def close(self) -> None:
        os.close(self.fd)


Reason = tuple[FailureKind, str]


@dataclass(frozen=True)
class TaskPolicy:
    """What a process is told beside a table."""

    refused: dict[TaskKey, Reason] = field(default_factory=dict)
    """Works that are not to be tried."""
    suspects: frozenset[bytes] = frozenset()
    """Files of which to tell whether any work ended well."""
    nothing: Reason | None = None
    """No work at all is to be tried."""


class TaskGuard:
    """The watch inside the process: notes each work, bounds its memory, refuses what has been blamed.

    One work at a time. It is entered a few times a row, each time with caches that a decoder has emptied: it is one
    object, makes none, and calls as little as can be.
    """

    def __init__(self, note: TaskSlot, memory_bytes: int) -> None:
        # The parent looks at what is really used and names the cause; this holds before and between its looks.
        self.note, self.most_bytes = note, memory_bytes + memory_bytes // 4
        self.memory = Memory()
        self.number = 0
        self.file = b""
        self.step: StageName = "probe"
        self.ordered = False
        self.ending = False
        self.survived: set[bytes]
        self.follow(TaskPolicy())

    def follow(self, orders: TaskPolicy) -> None:
        """What is ordered for the table at hand."""
        self.orders, self.suspects, self.survived = orders, orders.suspects, set()
        self.ordered = bool(orders.refused or orders.nothing)

    def rest(self) -> None:
        """What is taken from now on is no work's."""
        self.memory.unlimit()

    def __call__(self, work: Task) -> TaskGuard:
        if self.ending:
            return self
        key = (work.file_key(), work.part)
        if self.ordered:
            self._check(*key)
        self.number += 1
        self.file, self.step = key[0], work.step
        self.note.write(self.number, work.row, work.step, key, self.memory.limit(self.most_bytes))
        return self

    def _check(self, file: bytes, part: int | None) -> None:
        refused = self.orders.nothing
        if refused is None:
            refused = self.orders.refused.get((file, part)) or self.orders.refused.get((file, WHOLE_FILE))
        if refused is not None:
            raise SampleError(*refused)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.ending = True  # SystemExit above all: it ends the process, and the note must stay
        if self.ending:
            return
        self.note.rest()
        # Whoever hears of an error needs memory, and so does a probe's stage, for all windows of the file. Between the
        # works of a row the limit stays: lifting it is dear, beside all else here.
        if kind is not None or self.step == "probe":
            self.rest()
        if self.suspects and kind is None and self.file in self.suspects:
            self.survived.add(self.file)
