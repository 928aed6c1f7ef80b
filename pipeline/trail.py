"""What an encoder's process was at when it died: a block is then encoded row by row, and a row at which a process died
twice, alone, is that row's failure.

A decoder's process has a parent that watches it (`pipeline.isolation`). An encoder's is replaced by Ray wherever there
is room, so its notes lie in the run's counter, which no death of a worker reaches. A lost node or a kill counts as one
death at what was at work there, and a row is blamed for two.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pyarrow as pa
import ray

from pipeline.errors import SampleError, TesseraError

_DEATHS = 2
_SETUPS = 3
_DEVICES = 20
_ANSWER_S = 10.0

Work = tuple[str, ...]
"""``("setup", actor)``, ``("block", sample, window)`` or ``("row", feature, sample, window)``."""


class Notes:
    """The counter's side."""

    def __init__(self) -> None:
        self.works: dict[str, Work] = {}
        self.deaths: Counter[Work] = Counter()
        self.devices = 0

    def at(self, actor: str, work: Work | None) -> None:
        """``actor`` begins ``work``, or rests."""
        if work is None:
            self.works.pop(actor, None)
        else:
            self.works[actor] = work

    def started(self, actor: str) -> dict[Work, int]:
        """How often a process died at each work, ``actor``'s last among them if it had one."""
        work = self.works.pop(actor, None)
        if work is not None:
            self.deaths[work] += 1
        return dict(self.deaths)

    def device_failed(self) -> int:
        """How many devices' failures that makes in this run."""
        self.devices += 1
        return self.devices


class Trail:
    """The side of an encoder's process. A counter that does not answer costs blame, never a row."""

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.actor = ray.get_runtime_context().get_actor_id() or ""  # the same after a death
        self.deaths: dict[Work, int] = {}
        with suppress(Exception):
            self.deaths = ray.get(counter.started.remote(self.actor), timeout=_ANSWER_S)

    def set_up(self) -> None:
        """Before models are loaded. Raises ``TesseraError`` where that has ended this actor's process too often."""
        work = ("setup", self.actor)
        if self.deaths.get(work, 0) >= _SETUPS:
            raise TesseraError(f"a process died {_SETUPS} times while it loaded its models: is memory short?")
        self._tell(work)

    def begin(self, table: pa.Table) -> bool:
        """Before a block. True if a process died at it before: then `enter` is to be called for each row instead."""
        if not len(table):
            return False
        work = ("block", table["sample_id"][0].as_py(), str(table["window"][0].as_py()))
        if work in self.deaths:
            return True
        self.counter.at.remote(self.actor, work)
        return False

    def enter(self, feature: str, sample_id: str, window: int) -> None:
        """Before a row is encoded by itself. Raises ``SampleError`` (``crash``) if that has ended a process twice."""
        work = ("row", feature, sample_id, str(window))
        if self.deaths.get(work, 0) >= _DEATHS:
            raise SampleError("crash", f"the encoder's process died {_DEATHS} times at it")
        self._tell(work)

    def rest(self) -> None:
        """Nothing is at work that a row could be blamed for."""
        self._tell(None)

    def device_failed(self) -> bool:
        """True if this process is to end, so that Ray starts another, which has the device anew; not for ever."""
        with suppress(Exception):
            return bool(ray.get(self.counter.device_failed.remote(), timeout=_ANSWER_S) <= _DEVICES)
        return False

    def _tell(self, work: Work | None) -> None:
        with suppress(Exception):
            ray.get(self.counter.at.remote(self.actor, work), timeout=_ANSWER_S)
