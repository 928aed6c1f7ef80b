"""Records what an encoder's process was working on when it died.

The next process encodes that block row by row. A row that kills a process twice, on its own, becomes a failure.

A decoder's process has a parent that watches it (`pipeline.sandbox`). An encoder's process is replaced by Ray on any
node, so the records are kept in the run's counter, an actor on the driver's node. A lost node or a kill from outside
also counts as one death of the work that ran there; a row fails after two.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pyarrow as pa
import ray

from pipeline.core.errors import SampleError, TesseraError

_ROW_DEATHS, _BLOCK_DEATHS, _SETUP_DEATHS = 2, 5, 3
_DEVICE_FAILURES = 9
"""Most failures of a device without a finished row or block between them: two for each of four rows, one for their
block."""
_ANSWER_S = 10.0

WorkItem = tuple[str, ...]
"""``("setup", actor)``, ``("block", sample, window)`` or ``("row", feature, sample, window)``."""


class CrashJournal:
    """The records, kept by the run's counter. Its methods are called by `CrashJournalClient` in the workers."""

    def __init__(self) -> None:
        self.works: dict[str, dict[int, WorkItem]] = {}
        """Actor -> thread -> what it is working on."""
        self.deaths: Counter[WorkItem] = Counter()
        self.causes: dict[WorkItem, str] = {}
        self.failures = 0
        self.failing: dict[str, int] = {}
        """Actor -> the first thread of its process that reported a failure of the device."""
        self.progressed = False

    def record_work(self, actor: str, work: WorkItem | None, thread: int = 0) -> None:
        """Records that ``thread`` begins ``work``, or is idle for None.

        Its previous work has then succeeded, unless it is the block that contains this row.
        """
        works = self.works.setdefault(actor, {})
        before = works.pop(thread, None)
        has_ended = {"row": True, "block": work is None or (work[0] == "block" and work != before)}
        if before is not None and has_ended.get(before[0]):
            self.failures, self.progressed = 0, True
        if work is not None:
            works[thread] = work

    def record_start(self, actor: str) -> tuple[dict[WorkItem, int], dict[WorkItem, str]]:
        """Records a new process of ``actor``. Work that its previous process had begun counts as a death.

        Returns:
            How often a process died at each work; and the error of the device, if there was one.
        """
        self.deaths.update(self.works.pop(actor, {}).values())
        self.failing.pop(actor, None)
        return dict(self.deaths), dict(self.causes)

    def record_device_failure(self, actor: str, words: str, thread: int = 0) -> bool:
        """Records a failure of the device, and returns whether the work of ``thread`` may be its cause.

        It is not if no work has ever succeeded, or none does any more: then the device itself is broken.
        """
        if self.failing.setdefault(actor, thread) == thread:  # other threads report the same failure
            self.failures += 1
        if (work := self.works.get(actor, {}).get(thread)) is not None:
            self.causes[work] = words
        return self.failures <= (_DEVICE_FAILURES if self.progressed else _ROW_DEATHS)


class CrashJournalClient:
    """The client in an encoder's process. If the counter does not answer, records are lost, but no rows.

    Args:
        counter: actor handle of the run's counter.
    """

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.actor = ray.get_runtime_context().get_actor_id() or ""  # Ray keeps the id when it replaces the process
        self.deaths: dict[WorkItem, int] = {}
        self.causes: dict[WorkItem, str] = {}
        self.of_thread = threading.local()  # .block: the block that the thread works on
        with suppress(Exception):
            self.deaths, self.causes = ray.get(counter.record_start.remote(self.actor), timeout=_ANSWER_S)

    def begin_setup(self) -> None:
        """Call it before models are loaded. Raises ``TesseraError`` if that has killed the process too often."""
        work = ("setup", self.actor)
        if self.deaths.get(work, 0) >= _SETUP_DEATHS:
            raise TesseraError(f"a process died {_SETUP_DEATHS} times while it loaded its models: is memory short?")
        self._record_work(work)

    def is_suspect(self, table: pa.Table) -> bool:
        """Returns whether a process died at this block before. No other block may then run in this process."""
        return len(table) > 0 and self.deaths.get(_key_of(table), 0) > 0

    def begin_block(self, table: pa.Table) -> bool:
        """Call it before a block. Returns whether a process died at it before: then call `begin_row` before each row.

        Raises:
            TesseraError: processes died at it too often, and at none of its rows on its own.
        """
        if not len(table):
            return False
        self.of_thread.block = block = _key_of(table)
        deaths = self.deaths.get(block, 0)
        if deaths >= _BLOCK_DEATHS:
            raise TesseraError(
                f"a process died {deaths} times at the block that begins with {block[1]!r}, window {block[2]}, and at "
                "none of its rows alone: is memory short?"
            )
        if deaths:
            self._record_work(block)
        else:
            self.counter.record_work.remote(self.actor, block, threading.get_ident())
        return deaths > 0

    def begin_row(self, row: int, feature: str, sample_id: str, window: int) -> None:
        """Call it before a row is encoded on its own. ``row`` is its index in the block.

        Raises:
            SampleError: ``crash``, if the row has killed a process twice.
        """
        work = ("row", feature, sample_id, str(window))
        if self.deaths.get(work, 0) >= _ROW_DEATHS:
            cause = f" ({self.causes[work]})" if work in self.causes else ""
            raise SampleError("crash", f"the encoder's process died {_ROW_DEATHS} times at it{cause}")
        self._record_work(work)

    def end_work(self) -> None:
        """Call it after the set-up, or after the rows of a block: a death from here on counts for no row."""
        self._record_work(getattr(self.of_thread, "block", None))

    def report_device_failure(self, words: str) -> bool:
        """Reports a failure of the device, and returns whether this process must end.

        Ray then starts another one, which opens the device again.
        """
        with suppress(Exception):
            return bool(
                ray.get(
                    self.counter.record_device_failure.remote(self.actor, words, threading.get_ident()),
                    timeout=_ANSWER_S,
                )
            )
        return False

    def _record_work(self, work: WorkItem | None) -> None:
        """Records the work of this thread, and waits until the counter has received it."""
        with suppress(Exception):
            ray.get(self.counter.record_work.remote(self.actor, work, threading.get_ident()), timeout=_ANSWER_S)


def _key_of(table: pa.Table) -> WorkItem:
    """Returns the key of a block: sample and window of its first row."""
    return ("block", table["sample_id"][0].as_py(), str(table["window"][0].as_py()))
