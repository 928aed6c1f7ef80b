"""The task that a worker process runs, recorded in memory shared with its parent.

The record survives whatever ends the worker, so the parent can see which file and which step ended it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.core.arrow import Allocate
from pipeline.core.errors import FailureKind, SampleError, StageName
from pipeline.sandbox._process_memory import ProcessMemory
from pipeline.storage.retry import ignore_wait

SLOT_BYTES = mmap.PAGESIZE
"""Size of a `TaskSlot`, in bytes."""
_HEADER = struct.Struct("<QqqQBHB")
"""Task number, row, part, base bytes, step, length of the file key, whether the task waited for storage."""
_WAITED_OFFSET = _HEADER.size - 1
_NO_TASK = bytes(8)
_NO_PART = -(1 << 63)
_STEPS: tuple[StageName, ...] = ("probe", "decode", "tokenize", "encode")
_STEP_NUMBERS: dict[StageName, int] = {step: number for number, step in enumerate(_STEPS)}
_MAX_KEY_BYTES = 256


class Task(NamedTuple):
    """One call of native code that a stage is about to make.

    Args:
        row: index of the row in the table that the stage maps.
        step: the step of the pipeline.
        feature: name of the feature, or the role of the file that is opened.
        source: the file's URI, or the sample's id if there is no file.
        part: number of the window if the result depends on it; None if it is the same in all windows.
    """

    row: int
    step: StageName
    feature: str
    source: str
    part: int | None = None

    def file_key(self) -> bytes:
        """Returns a key that is equal for all parts of one file, in any row of any table."""
        text = f"{self.step}\0{self.feature}\0{self.source}".encode(errors="surrogatepass")
        return text if len(text) <= _MAX_KEY_BYTES else hashlib.blake2b(text).digest()


TaskKey = tuple[bytes, int | None]
"""``Task.file_key`` and the part. The part ``WHOLE_FILE`` means all parts of the file."""
WHOLE_FILE = -1

Guard = Callable[[Task], AbstractContextManager[None]]
"""Returns the context that a stage enters around each task. Raises ``SampleError`` if the task must not be run."""


def unguarded(task: Task) -> AbstractContextManager[None]:
    """The guard of a stage outside a worker process: does nothing."""
    return _NO_GUARD


_NO_GUARD = nullcontext()


@dataclass(frozen=True)
class StageContext:
    """What a stage uses of the process that it runs in. The defaults are those of a process that nothing supervises."""

    guard: Guard = unguarded
    """Entered around each task."""
    allocate: Allocate = np.empty
    """Allocates the values of large columns. In a worker they lie in memory that its parent reads."""
    on_wait: Callable[[], None] = ignore_wait
    """Called before each wait for storage."""


class TaskRecord(NamedTuple):
    """A task as its worker process recorded it.

    Args:
        number: counts the tasks of the process, from 1.
        row: see `Task`.
        step: see `Task`.
        key: the file key and the part.
        base_bytes: anonymous memory of the process before the task, in bytes.
        waited: the storage failed during the task, and the read is tried again.
    """

    number: int
    row: int
    step: StageName
    key: TaskKey
    base_bytes: int
    waited: bool = False


class TaskSlot:
    """Shared memory with room for one `TaskRecord`: a header, then the file key.

    Args:
        fd: descriptor of the shared file, of ``SLOT_BYTES`` bytes.
    """

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, SLOT_BYTES)

    def write(self, number: int, row: int, step: StageName, key: TaskKey, base_bytes: int) -> None:
        """Records the task that starts now. The arguments are the fields of `TaskRecord`."""
        file_key, part = key
        size = len(file_key)
        self.memory[_HEADER.size : _HEADER.size + size] = file_key
        part = _NO_PART if part is None else part
        _HEADER.pack_into(self.memory, 0, number, row, part, base_bytes, _STEP_NUMBERS[step], size, 0)

    def mark_waiting(self) -> None:
        """Records that the current task waits for its storage."""
        self.memory[_WAITED_OFFSET] = 1

    def clear(self) -> None:
        """Records that no task runs."""
        self.memory[:8] = _NO_TASK

    def read(self) -> TaskRecord | None:
        """Returns the task that runs, or that ran when its process ended; None if there is none."""
        number, row, part, base_bytes, step, size, waited = _HEADER.unpack_from(self.memory)
        key = (self.memory[_HEADER.size : _HEADER.size + size], None if part == _NO_PART else part)
        return TaskRecord(number, row, _STEPS[step], key, base_bytes, bool(waited)) if number else None


Reason = tuple[FailureKind, str]
"""Why a task failed: the kind and the message of its ``SampleError``."""


@dataclass(frozen=True)
class TaskPolicy:
    """Which tasks of a table a worker process refuses, and about which files it reports."""

    refused: dict[TaskKey, Reason] = field(default_factory=dict)
    """Tasks that are not run."""
    suspects: frozenset[bytes] = frozenset()
    """Files (``Task.file_key``) for which the worker reports whether any task succeeded."""
    refuse_all: Reason | None = None
    """If set, no task is run."""
    row_by_row: bool = False
    """Whether a journaled stage records each row, and maps it by itself."""


class TaskGuard:
    """The guard inside a worker process: records each task, limits its memory, refuses tasks that were blamed.

    One task at a time. It is called a few times per row, each time with CPU caches that a decoder has filled with
    other data. Therefore the context is the guard itself, and entering it allocates and calls as little as possible.

    Args:
        slot: where tasks are recorded.
        memory_bytes: memory that one task may take, in bytes.
    """

    def __init__(self, slot: TaskSlot, memory_bytes: int) -> None:
        # The parent measures resident memory and names the cause; this limit holds between two measurements.
        self.slot, self.memory_bytes, self.limit_bytes = slot, memory_bytes, memory_bytes + memory_bytes // 4
        self.memory = ProcessMemory()
        self.number = 0
        self.file_key = b""
        self.step: StageName = "probe"
        self.exiting = False
        self.survived: set[bytes]
        self.set_policy(TaskPolicy())

    def for_slot(self, slot: TaskSlot) -> TaskGuard:
        """Returns a guard with the same limit that records its tasks in another slot."""
        return TaskGuard(slot, self.memory_bytes)

    def set_policy(self, policy: TaskPolicy) -> None:
        """Sets the policy of the next table, and forgets which suspects survived the last one."""
        self.policy, self.suspects, self.survived = policy, policy.suspects, set()
        self.has_refusals = bool(policy.refused or policy.refuse_all)

    def lift_limit(self) -> None:
        """Removes the memory limit: what is allocated from now on belongs to no task."""
        self.memory.unlimit()

    def __call__(self, task: Task) -> TaskGuard:
        """Records a task that starts. Raises ``SampleError`` if the policy refuses it."""
        if self.exiting:
            return self
        key = (task.file_key(), task.part)
        if self.has_refusals:
            self._check(*key)
        self.number += 1
        self.file_key, self.step = key[0], task.step
        self.slot.write(self.number, task.row, task.step, key, self.memory.limit(self.limit_bytes))
        return self

    def _check(self, file_key: bytes, part: int | None) -> None:
        reason = self.policy.refuse_all
        if reason is None:
            reason = self.policy.refused.get((file_key, part)) or self.policy.refused.get((file_key, WHOLE_FILE))
        if reason is not None:
            raise SampleError(*reason)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.exiting = True  # above all SystemExit: it ends the process, and the record must stay
        if self.exiting:
            return
        self.slot.clear()
        # To handle an error takes memory, and so does the code of ProbeStage that handles all windows of a file.
        # Between the other tasks of a row the limit stays: to lift it takes long, compared to all else here.
        if kind is not None or self.step == "probe":
            self.lift_limit()
        if self.suspects and kind is None and self.file_key in self.suspects:
            self.survived.add(self.file_key)


class GuardJournal:
    """The `RowJournal` of a stage in a worker process: records rows as tasks of a guard.

    Args:
        guard: the guard of the process.
    """

    def __init__(self, guard: TaskGuard) -> None:
        self.guard = guard

    def begin_row(self, row: int, feature: str, sample_id: str, window: int) -> None:
        """Records a row that is encoded next. Raises ``SampleError`` if it was blamed."""
        self.guard(Task(row, "encode", feature, sample_id, window))

    def end_work(self) -> None:
        """Records that no row is being encoded."""
        self.guard.slot.clear()
