"""What a process is at, noted in memory that its parent shares: the note survives whatever ends the process."""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from pipeline.errors import FailureKind, SampleError, Stage

NOTE_BYTES = mmap.PAGESIZE
_NOTE = struct.Struct("<QqB16s16sQ")
_STEPS: tuple[Stage, ...] = ("probe", "decode", "tokenize")
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Work:
    """One thing that a stage is about to ask of native code.

    Args:
        row: in the table that the stage was given.
        step: of the stage.
        feature: the feature, or the role of the file that is opened.
        source: the file's uri, or the sample's id where there is none.
        part: the window, where it decides what is done; None: the same work in every window.
    """

    row: int
    step: Stage
    feature: str
    source: str
    part: int | None = None

    @property
    def key(self) -> bytes:
        """The same for the same work, in whatever row of whatever table."""
        return _digest(self.step, self.feature, self.source, self.part)

    @property
    def file_key(self) -> bytes:
        """The same for all parts of one file."""
        return _digest(self.step, self.feature, self.source)


Watch = Callable[[Work], AbstractContextManager[None]]
"""What a stage enters around each work. Raises ``SampleError`` where the work is not to be tried again."""


def unwatched(work: Work) -> AbstractContextManager[None]:
    """The watch of a stage that nobody watches."""
    return _NOTHING


_NOTHING = nullcontext()


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Noted:
    """A work as its process noted it. ``number`` counts works; ``base_bytes``: memory that it had before this one."""

    number: int
    row: int
    step: Stage
    key: bytes
    file_key: bytes
    base_bytes: int


class Note:
    """One ``Noted``, or none, in the shared file ``fd`` of ``NOTE_BYTES``."""

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, NOTE_BYTES)

    def write(self, noted: Noted) -> None:
        step = _STEPS.index(noted.step)
        _NOTE.pack_into(self.memory, 0, noted.number, noted.row, step, noted.key, noted.file_key, noted.base_bytes)

    def rest(self) -> None:
        """Nothing is at work."""
        _NOTE.pack_into(self.memory, 0, 0, 0, 0, b"", b"", 0)

    def read(self) -> Noted | None:
        number, row, step, key, file_key, base_bytes = _NOTE.unpack_from(self.memory)
        return Noted(number, row, _STEPS[step], key, file_key, base_bytes) if number else None


class Memory:
    """A process's own memory: what it does not share with files or other processes."""

    def __init__(self, pid: int | str = "self") -> None:
        self.fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def anonymous_bytes(self) -> int:
        """Resident bytes. 0 of a process that is gone."""
        return self._read()[0]

    def _read(self) -> tuple[int, int]:
        try:
            _, resident, shared, _, _, data, *_ = map(int, os.pread(self.fd, 256, 0).split())
        except ProcessLookupError:
            return 0, 0
        return (resident - shared) * _PAGE, data * _PAGE

    def limit(self, more_bytes: int) -> int:
        """From now on an allocation beyond ``more_bytes`` more fails. Returns ``anonymous_bytes``."""
        resident, data = self._read()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = data + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))
        return resident

    def unlimit(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))

    def close(self) -> None:
        os.close(self.fd)


Reason = tuple[FailureKind, str]


@dataclass(frozen=True)
class Orders:
    """What a process is told beside a table."""

    refused: dict[bytes, Reason] = field(default_factory=dict)
    """Keys of works and files that are not to be tried."""
    suspects: frozenset[bytes] = frozenset()
    """Files of which to tell whether any work ended well."""
    nothing: Reason | None = None
    """No work at all is to be tried."""


class Watcher:
    """The watch inside the process: notes each work, bounds its memory, refuses what has been blamed."""

    def __init__(self, note: Note, memory_bytes: int) -> None:
        # The parent's look at what is really used comes first and names the cause; this holds between two looks.
        self.note, self.most_bytes = note, memory_bytes + memory_bytes // 4
        self.memory = Memory()
        self.number = 0
        self.orders = Orders()
        self.survived: set[bytes] = set()

    @contextmanager
    def __call__(self, work: Work) -> Iterator[None]:
        key, file_key = work.key, work.file_key
        refused = self.orders.nothing or self.orders.refused.get(key) or self.orders.refused.get(file_key)
        if refused is not None:
            raise SampleError(*refused)
        self.number += 1
        base = self.memory.limit(self.most_bytes)
        self.note.write(Noted(self.number, work.row, work.step, key, file_key, base))
        try:
            yield
        except Exception:  # anything else, SystemExit above all, ends the process: then the note must stay
            self._rest()
            raise
        self._rest()
        if file_key in self.orders.suspects:
            self.survived.add(file_key)

    def _rest(self) -> None:
        self.note.rest()
        self.memory.unlimit()
