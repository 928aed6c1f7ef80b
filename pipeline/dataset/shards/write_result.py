"""The result of a write task, and the check that every planned row and cell is accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Written:
    """The result of one write task, or the sum over all tasks of a run. Picklable.

    A cell is one feature of one row.
    """

    shards: list[dict[str, Any]] = field(default_factory=list)
    """Files of rows, as `File.plain` returns them; so are ``failure_shards`` and ``empty_shards``."""
    failure_shards: list[dict[str, Any]] = field(default_factory=list)
    empty_shards: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_written: int = 0
    rows_failed: int = 0
    rows_partial: int = 0
    """Written rows that lack a feature, because it failed."""
    rows_retried: int = 0
    """Rows that had failed in an earlier run."""
    rows_retried_with_failures: int = 0
    """The part of ``rows_retried`` that failed again, in one or more features."""
    rows_empty: int = 0
    """Windows without content for any feature: between timed words, or of a file of another modality."""
    samples: int = 0
    samples_by_unit: dict[str, int] = field(default_factory=dict)
    """Name of a unit of work -> finished samples of it."""
    windows_promised: int = 0
    """Number of windows that the samples were cut into and that had to be computed."""
    cells_planned: int = 0
    cells_written: dict[str, int] = field(default_factory=dict)
    cells_failed: dict[str, int] = field(default_factory=dict)
    failures_by_kind: dict[str, int] = field(default_factory=dict)
    failures_by_stage: dict[str, int] = field(default_factory=dict)
    meters: dict[str, float] = field(default_factory=dict)
    write_s: float = 0.0

    def add(self, other: Written) -> None:
        """Adds the result of another task to this one."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, dict):
                for key, count in value.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, mine + value)

    def problems(self) -> list[str]:
        """Returns a message for each sum that does not match; empty if every planned row and cell is accounted for."""
        found = []
        if self.rows != self.windows_promised:
            found.append(f"{self.windows_promised} windows were cut, {self.rows} rows arrived")
        if self.rows != self.rows_written + self.rows_failed + self.rows_empty:
            found.append(f"{self.rows} rows arrived, {self.rows_written} written, {self.rows_failed} failed")
        cells = sum(self.cells_written.values()) + sum(self.cells_failed.values())
        if self.cells_planned != cells:
            found.append(f"{self.cells_planned} cells planned, {cells} written or failed")
        return found
