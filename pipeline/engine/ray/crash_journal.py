"""What an encoder's process was at when it died: a block is then encoded row by row, and a row at which a process died
twice, alone, is that row's failure.

A decoder's process has a parent that watches it (`pipeline.sandbox`). An encoder's is replaced by Ray wherever there
is room, so its notes lie in the run's counter, which stands on the driver's node. A lost node or a kill counts as one
death at what was at work there, and a row is blamed for two.
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
"""Without a row or a block that ended well between them: four rows alone, and their block."""
_ANSWER_S = 10.0

Work = tuple[str, ...]
"""``("setup", actor)``, ``("block", sample, window)`` or ``("row", feature, sample, window)``."""


class CrashJournal:
    """The counter's side."""

    def __init__(self) -> None:
        self.works: dict[str, dict[int, Work]] = {}
        """What each thread of an actor's process is at."""
        self.deaths: Counter[Work] = Counter()
        self.causes: dict[Work, str] = {}
        self.failures = 0
        self.failing: dict[str, int] = {}
        """The first thread of an actor's process that told of its device."""
        self.progressed = False

    def at(self, actor: str, work: Work | None, thread: int = 0) -> None:
        """``thread`` begins ``work``, or rests; what it was at has ended well, unless this is a row of that block."""
        works = self.works.setdefault(actor, {})
        before = works.pop(thread, None)
        ended = {"row": True, "block": work is None or (work[0] == "block" and work != before)}
        if before is not None and ended.get(before[0]):
            self.failures, self.progressed = 0, True
        if work is not None:
            works[thread] = work

    def started(self, actor: str) -> tuple[dict[Work, int], dict[Work, str]]:
        """How often a process died at each work, ``actor``'s last among them if it had any; and what a device said."""
        self.deaths.update(self.works.pop(actor, {}).values())
        self.failing.pop(actor, None)
        return dict(self.deaths), dict(self.causes)

    def device_failed(self, actor: str, words: str, thread: int = 0) -> bool:
        """Whether what ``thread`` is at may be to blame: not if nothing has ever ended well, or does any more."""
        if self.failing.setdefault(actor, thread) == thread:  # other threads tell of the same failure
            self.failures += 1
        if (work := self.works.get(actor, {}).get(thread)) is not None:
            self.causes[work] = words
        return self.failures <= (_DEVICE_FAILURES if self.progressed else _ROW_DEATHS)


class CrashJournalClient:
    """The side of an encoder's process. A counter that does not answer costs blame, never a row."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.actor = ray.get_runtime_context().get_actor_id() or ""  # the same after a death
        self.deaths: dict[Work, int] = {}
        self.causes: dict[Work, str] = {}
        self.own = threading.local()  # each thread's block
        with suppress(Exception):
            self.deaths, self.causes = ray.get(counter.started.remote(self.actor), timeout=_ANSWER_S)

    def set_up(self) -> None:
        """Before models are loaded. Raises ``TesseraError`` where that has ended this actor's process too often."""
        work = ("setup", self.actor)
        if self.deaths.get(work, 0) >= _SETUP_DEATHS:
            raise TesseraError(f"a process died {_SETUP_DEATHS} times while it loaded its models: is memory short?")
        self._tell(work)

    def suspects(self, table: pa.Table) -> bool:
        """True if a process died at this block before: nothing else is to be at work beside it."""
        return len(table) > 0 and self.deaths.get(_named(table), 0) > 0

    def begin(self, table: pa.Table) -> bool:
        """Before a block. True if a process died at it before: then `enter` is to be called for each row too.

        Raises:
            TesseraError: processes died at it again and again, and at no row alone.
        """
        if not len(table):
            return False
        self.own.block = block = _named(table)
        deaths = self.deaths.get(block, 0)
        if deaths >= _BLOCK_DEATHS:
            raise TesseraError(
                f"a process died {deaths} times at the block that begins with {block[1]!r}, window {block[2]}, and at "
                "none of its rows alone: is memory short?"
            )
        if deaths:
            self._tell(block)
        else:
            self.counter.at.remote(self.actor, block, threading.get_ident())
        return deaths > 0

    def enter(self, feature: str, sample_id: str, window: int) -> None:
        """Before a row is encoded by itself. Raises ``SampleError`` (``crash``) if that has ended a process twice."""
        work = ("row", feature, sample_id, str(window))
        if self.deaths.get(work, 0) >= _ROW_DEATHS:
            cause = f" ({self.causes[work]})" if work in self.causes else ""
            raise SampleError("crash", f"the encoder's process died {_ROW_DEATHS} times at it{cause}")
        self._tell(work)

    def rest(self) -> None:
        """Nothing is at work that a row could be blamed for."""
        self._tell(getattr(self.own, "block", None))

    def device_failed(self, words: str) -> bool:
        """True if this process is to end, so that Ray starts another, which has the device anew."""
        with suppress(Exception):
            return bool(
                ray.get(self.counter.device_failed.remote(self.actor, words, threading.get_ident()), timeout=_ANSWER_S)
            )
        return False

    def _tell(self, work: Work | None) -> None:
        with suppress(Exception):
            ray.get(self.counter.at.remote(self.actor, work, threading.get_ident()), timeout=_ANSWER_S)


def _named(table: pa.Table) -> Work:
    return ("block", table["sample_id"][0].as_py(), str(table["window"][0].as_py()))
