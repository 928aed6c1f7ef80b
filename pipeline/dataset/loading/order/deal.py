"""How the batches of an epoch are dealt to ranks and their workers, also from a later position on.

Batch ``k`` of an epoch is its rows ``[k * batch_size, (k + 1) * batch_size)``. From a position on, batches are dealt to
the ranks in turn, and those of a rank to its workers in turn. So the sequence of batches is the same for any numbers of
them. In the last round, not every rank would have a full batch; `Tail` says what happens to its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tail = Literal["short", "drop", "repeat"]
"""short: the rows of the last round are shared evenly, as shorter batches; if there are fewer rows than ranks, some are
repeated. drop: they are left out. repeat: the round is filled up with the first rows of the epoch."""
Range = tuple[int, int]
"""Rows ``[start, end)`` of an epoch."""


@dataclass(frozen=True)
class Deal:
    """The batches of one epoch, from a position on."""

    rows: int
    """Rows of the epoch."""
    batch_size: int
    start: int
    """Number of batches that were dealt before."""
    world_size: int
    tail: Tail

    @property
    def rounds(self) -> int:
        """Number of batches of each rank."""
        return self._full_rounds + (self.left_rows > 0 and self.tail != "drop")

    @property
    def left_rows(self) -> int:
        """Rows of the last round, in which not every rank would have a full batch."""
        return self.rows - self._last_start

    @property
    def repeated_rows(self) -> int:
        """Rows of the last round, of all ranks, that are in the epoch a second time."""
        if not self.left_rows or self.tail == "drop":
            return 0
        wanted = self.world_size * (self.batch_size if self.tail == "repeat" else 1)
        return max(0, wanted - self.left_rows)

    def end(self, rounds: int) -> int:
        """Returns the position after so many rounds."""
        return self.start + rounds * self.world_size

    def batch(self, rank: int, number: int) -> list[Range]:
        """Returns the rows of batch ``number`` of a rank."""
        if number < self._full_rounds:
            first = (self.end(number) + rank) * self.batch_size
            return [(first, first + self.batch_size)]
        if self.tail == "repeat":
            return list(self._filled(rank))
        start, left, world = self._last_start, self.left_rows, self.world_size
        if left < world:
            row = start + rank % left
            return [(row, row + 1)]
        return [(start + left * rank // world, start + left * (rank + 1) // world)]

    @property
    def _full_rounds(self) -> int:
        return max(0, self.rows // self.batch_size - self.start) // self.world_size

    @property
    def _last_start(self) -> int:
        """The first row of the last round."""
        return min(self.rows, self.end(self._full_rounds) * self.batch_size)

    def _filled(self, rank: int) -> Iterator[Range]:
        """Yields the rows of a rank in the last round, after whose rows those of the epoch begin again."""
        start = self._last_start + rank * self.batch_size
        count = self.batch_size
        while count:
            row = start if start < self.rows else (start - self.rows) % self.rows
            taken = min(count, self.rows - row)
            yield row, row + taken
            start, count = start + taken, count - taken
