"""What a write task wrote, and whether every planned row and cell is accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Written:
    """What one write task did; summed over all tasks by the driver. Picklable."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    failure_shards: list[dict[str, Any]] = field(default_factory=list)
    empty_shards: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    rows_written: int = 0
    rows_failed: int = 0
    rows_partial: int = 0
    """Rows written that lack a feature which failed."""
    rows_retried: int = 0
    """Rows that arrived and had failed before."""
    rows_retried_with_failures: int = 0
    """And have failed again, in one feature or all."""
    rows_empty: int = 0
    """Windows that hold nothing any feature reads: between timed words, or a file of another modality."""
    samples: int = 0
    windows_promised: int = 0
    """Sum over samples of the number of windows that the cut made and that were to be computed."""
    cells_planned: int = 0
    cells_written: dict[str, int] = field(default_factory=dict)
    cells_failed: dict[str, int] = field(default_factory=dict)
    failures_by_kind: dict[str, int] = field(default_factory=dict)
    failures_by_stage: dict[str, int] = field(default_factory=dict)
    meters: dict[str, float] = field(default_factory=dict)
    write_s: float = 0.0

    def add(self, other: Written) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, dict):
                for key, count in value.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, mine + value)

    def problems(self) -> list[str]:
        """Why the books do not balance; empty if every planned row and cell is written or failed."""
        found = []
        if self.rows != self.windows_promised:
            found.append(f"{self.windows_promised} windows were cut, {self.rows} rows arrived")
        if self.rows != self.rows_written + self.rows_failed + self.rows_empty:
            found.append(f"{self.rows} rows arrived, {self.rows_written} written, {self.rows_failed} failed")
        cells = sum(self.cells_written.values()) + sum(self.cells_failed.values())
        if self.cells_planned != cells:
            found.append(f"{self.cells_planned} cells planned, {cells} written or failed")
        return found
