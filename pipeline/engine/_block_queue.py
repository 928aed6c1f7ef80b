"""The blocks that wait for a phase of a run on one machine."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

import pyarrow as pa

from pipeline.core.errors import TesseraError
from pipeline.stages.units import Unit, unit_table

_LEAST_ROWS = 8
"""Smallest part of a block: for fewer rows a model's pass, or opening a file again, costs too much."""
_WAKE_S = 0.5
"""How often the driver looks for signals while it waits for the workers."""


class BlockQueue:
    """The blocks that wait for a phase, latest phase first.

    Args:
        units: the work of the first phase.
        limits: for each phase how many blocks may wait for it before no more are made. None: any number, since those
            who make them take them first.
        workers: number of workers that map the first phase. The last blocks of phases without a limit, which they map
            too, are divided among them.
        until: when no more units are taken, in seconds since the epoch. None: all are.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        limits: Sequence[int | None],
        workers: int = 1,
        until: float | None = None,
    ) -> None:
        self.units, self.limits, self.workers, self.until = deque(units), limits, workers, until
        self.begun = list[Unit]()
        """The units that were taken."""
        self.waiting = [deque[pa.Table]() for _ in limits]
        """Blocks by phase. Those of the first phase are made when they are taken."""
        self.busy = 0
        """Number of blocks that are being mapped."""
        self.error: BaseException | None = None
        self.closed = False
        self.changed = threading.Condition()

    def take(self, phases: range) -> tuple[int, pa.Table] | None:
        """Returns the next block of one of ``phases`` and its phase, or waits for one. None: there will be no more."""
        with self.changed:
            while not self.closed and self._has_work():
                self._drop_late_units()
                last = next((phase for phase in reversed(phases) if self._waits(phase)), None)
                if last is not None and self._has_room(last + 1):
                    table = self._pop(last)
                    self.busy += 1
                    return last, table
                self.changed.wait()
        return None

    def _drop_late_units(self) -> None:
        """After `until` no unit is left. Everybody who waits may then be done."""
        if self.units and self.until is not None and time.time() >= self.until:
            self.units.clear()
            self.changed.notify_all()

    def _waits(self, phase: int) -> bool:
        """Returns whether a block waits for ``phase``."""
        return bool(self.waiting[phase] or (phase == 0 and self.units))

    def _has_room(self, phase: int) -> bool:
        """Returns whether a block for ``phase`` may be made."""
        limit = self.limits[phase] if phase < len(self.limits) else None
        return limit is None or len(self.waiting[phase]) < limit

    def _pop(self, phase: int) -> pa.Table:
        """Takes a block that waits for ``phase``; of the last blocks of a run a part, so that all workers end together:
        each takes its share of what is left then."""
        if self.limits[phase] is not None:
            self.changed.notify_all()  # there is room for another one
        waiting = self.waiting[phase]
        if not waiting:
            self.begun.append(self.units.popleft())
            return unit_table(self.begun[-1])
        table = waiting.popleft()
        if phase and not self.units and self.limits[phase] is None:
            share = max(_LEAST_ROWS, math.ceil((len(table) + sum(map(len, waiting))) / self.workers))
            if len(table) >= share + _LEAST_ROWS:
                waiting.appendleft(table.slice(share))
                table = table.slice(0, share)
                self.changed.notify_all()
        return table

    def put(self, phase: int, table: pa.Table) -> None:
        """Adds a block that waits for ``phase``; waits first while there is no room for it.

        Raises:
            TesseraError: the run is over.
        """
        with self.changed:
            while not self._has_room(phase) and not self.closed:
                self.changed.wait()
            if self.closed:
                raise TesseraError("the run is over")
            self.waiting[phase].append(table)
            self.changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """Records that a block is done, or why it cannot be."""
        with self.changed:
            self.busy -= 1
            if error is not None:
                self.error, self.closed = self.error or error, True
            if self.closed or not self._has_work():
                self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Records an error of a worker that maps no block. All workers end after their blocks."""
        with self.changed:
            self.error, self.closed = self.error or error, True
            self.changed.notify_all()

    def wait(self) -> None:
        """Waits until all blocks are done. Raises the first error of a worker."""
        with self.changed:
            while not self.closed and self._has_work():
                self.changed.wait(_WAKE_S)
                self._drop_late_units()
        if self.error is not None:
            raise self.error

    def _has_work(self) -> bool:
        return bool(self.busy or self.units or any(self.waiting))

    def close(self) -> None:
        """Ends all workers after their blocks."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
