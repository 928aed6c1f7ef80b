"""Notes survive; blamed work is refused before it starts; an allocation without end ends in `MemoryError`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.sandbox._process_memory import ProcessMemory
from pipeline.sandbox.shared_memory import shared_file
from pipeline.sandbox.tasks import SLOT_BYTES, WHOLE_FILE, Task, TaskGuard, TaskPolicy, TaskSlot, unguarded

WORK = Task(7, "decode", "picture", "s3://bucket/a.jpg", 2)


@pytest.fixture(autouse=True)
def _limit_ends() -> Iterator[None]:
    """A guard's limit stays, as in a worker process. Here later tests would have it."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture
def note() -> TaskSlot:
    return TaskSlot(shared_file(SLOT_BYTES))


def test_a_note_tells_what_is_at_work_and_for_how_long_it_stands(note: TaskSlot) -> None:
    watcher = TaskGuard(note, 1 << 30)
    assert note.read() is None
    with watcher(WORK):
        noted = note.read()
        assert noted is not None
        assert (noted.row, noted.step, noted.key) == (7, "decode", (WORK.file_key(), 2))
        assert 0 < noted.base_bytes <= ProcessMemory().anonymous_bytes() + (1 << 20)
    assert note.read() is None
    with watcher(WORK._replace(part=None)):
        again = note.read()
    assert again is not None
    assert again.number > noted.number
    assert again.key == (WORK.file_key(), None)


def test_a_note_outlives_the_process_that_wrote_it() -> None:
    fd = shared_file(SLOT_BYTES)
    code = (
        "import os, sys; from pipeline.sandbox.tasks import *; w = TaskGuard(TaskSlot(int(sys.argv[1])), 1 << 30)\n"
        "with w(Task(3, 'tokenize', 'f', 'x')): os.abort()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(fd)], pass_fds=[fd], check=False)
    noted = TaskSlot(fd).read()
    assert done.returncode == -6
    assert noted is not None
    assert (noted.row, noted.step) == (3, "tokenize")


def test_the_same_work_has_the_same_key_wherever_it_stands() -> None:
    assert WORK.file_key() == WORK._replace(row=0, part=9).file_key()
    others = [WORK._replace(step="tokenize"), WORK._replace(feature="x"), WORK._replace(source="\udcff.jpg")]
    others += [WORK._replace(source="x" * 5000), WORK._replace(source="x" * 5001)]
    assert len({WORK.file_key(), *(other.file_key() for other in others)}) == 6
    assert all(len(other.file_key()) < SLOT_BYTES // 2 for other in others)


def test_an_exception_is_an_end_and_an_exit_is_not(note: TaskSlot) -> None:
    watcher = TaskGuard(note, 1 << 30)
    with pytest.raises(ValueError, match="bad"), watcher(WORK):
        raise ValueError("bad")
    assert note.read() is None
    with pytest.raises(SystemExit), watcher(WORK):
        sys.exit(3)
    with watcher(WORK._replace(row=8)):  # what runs while the process ends
        pass
    noted = note.read()
    assert noted is not None
    assert noted.row == 7


@pytest.mark.parametrize("part", [2, WHOLE_FILE])
def test_refused_work_is_not_tried(note: TaskSlot, part: int) -> None:
    watcher = TaskGuard(note, 1 << 30)
    watcher.set_policy(TaskPolicy({(WORK.file_key(), part): ("crash", "it died")}))
    with pytest.raises(SampleError, match="it died"), watcher(WORK):
        pytest.fail("tried")
    assert note.read() is None
    with watcher(WORK._replace(source="other")):
        pass
    watcher.set_policy(TaskPolicy(refuse_all=("timeout", "all")))
    with pytest.raises(SampleError, match="all"), watcher(WORK._replace(source="other")):
        pytest.fail("tried")


def test_of_suspects_it_tells_which_ended_well(note: TaskSlot) -> None:
    watcher = TaskGuard(note, 1 << 30)
    other = WORK._replace(source="other")
    watcher.set_policy(TaskPolicy(suspects=frozenset({WORK.file_key()})))
    with pytest.raises(ValueError, match="bad"), watcher(WORK):
        raise ValueError("bad")
    with watcher(other):
        pass
    assert watcher.survived == set()
    with watcher(WORK):
        pass
    assert watcher.survived == {WORK.file_key()}


def test_memory_is_bounded_until_the_works_are_over(note: TaskSlot) -> None:
    watcher = TaskGuard(note, 1 << 30)
    with pytest.raises(MemoryError), watcher(WORK):
        np.empty(3 << 30, np.uint8)
    assert len(np.empty(3 << 30, np.uint8)) == 3 << 30  # who hears of an error needs memory
    with watcher(WORK):
        pass
    with pytest.raises(MemoryError):
        np.empty(3 << 30, np.uint8)
    watcher.lift_limit()
    assert len(np.empty(3 << 30, np.uint8)) == 3 << 30
    with watcher(WORK), pytest.raises(MemoryError):
        np.empty(3 << 30, np.uint8)
    with watcher(WORK._replace(step="probe")):
        pass
    assert len(np.empty(3 << 30, np.uint8)) == 3 << 30


def test_memory_counts_what_is_a_process_s_own() -> None:
    memory = ProcessMemory(os.getpid())
    before = memory.anonymous_bytes()
    held = np.ones(64 << 20, np.uint8)
    assert (60 << 20) < memory.anonymous_bytes() - before < (80 << 20)
    del held
    process = subprocess.Popen(["true"])
    gone = ProcessMemory(process.pid)
    process.wait()
    assert gone.anonymous_bytes() == 0


def test_nobody_watches_by_default() -> None:
    with unguarded(WORK):
        pass
