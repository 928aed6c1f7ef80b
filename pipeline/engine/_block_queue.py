"""The blocks that wait for a phase of a run on one machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import pyarrow as pa

from pipeline.stages.units import Unit, unit_table

_WAKE_S = 0.5
"""How often the driver looks for signals while it waits for the workers."""


class BlockQueue:
    """The blocks that wait for a phase, latest phase first.

    Args:
        units: the work of the first phase.
        phases: number of phases.
    """

    def __init__(self, units: Sequence[Unit], phases: int) -> None:
        self.units = deque(units)
        self.waiting = [deque[pa.Table]() for _ in range(phases)]
        """Blocks by phase. Those of the first phase are made when they are taken."""
        self.busy = 0
        """Number of blocks that are being mapped."""
        self.error: BaseException | None = None
        self.closed = False
        self.changed = threading.Condition()

    def take(self) -> tuple[int, pa.Table] | None:
        """Returns the next block and its phase, or waits for one. None: there will be no more."""
        with self.changed:
            while not self.closed:
                for phase in reversed(range(len(self.waiting))):
                    if self.waiting[phase]:
                        self.busy += 1
                        return phase, self.waiting[phase].popleft()
                if self.units:
                    self.busy += 1
                    return 0, unit_table(self.units.popleft())
                if not self.busy:
                    return None
                self.changed.wait()
        return None

    def put(self, phase: int, table: pa.Table) -> None:
        """Adds a block that waits for ``phase``."""
        with self.changed:
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

    def wait(self) -> None:
        """Waits until all blocks are done. Raises the first error of a worker."""
        with self.changed:
            while not self.closed and self._has_work():
                self.changed.wait(_WAKE_S)
        if self.error is not None:
            raise self.error

    def _has_work(self) -> bool:
        return bool(self.busy or self.units or any(self.waiting))

    def close(self) -> None:
        """Ends all workers after their blocks."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
