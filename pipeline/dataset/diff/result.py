"""What the comparison of a corpus with a dataset finds."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, fields

import numpy as np


@dataclass
class Counts:
    """Samples per class."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    retried: int = 0
    """Unchanged, with a failure that is tried again."""
    forgotten: int = 0
    forbidden: int = 0
    """Listed, and a file of theirs lies outside of what the source allows: of these, what is stored stays."""
    adopted: int = 0
    """New, changed or retried, and done by a run that was killed: nothing left to compute."""
    rows_adopted: int = 0
    rows_adopted_with_failures: int = 0
    new_rows_adopted: int = 0
    """Of these, rows of samples that are new or changed."""
    new_rows_adopted_with_failures: int = 0

    def add(self, other: Counts) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Difference:
    """What is to be done, but for the work itself, which is handed on as it is found."""

    counts: Counts = field(default_factory=Counts)
    work: int = 0
    """Samples to compute."""
    drops: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """File -> positions of rows that go."""


class DuplicateIdError(Exception):
    """Two samples of the id that is its only argument."""


def sample_hash(sample_id: str) -> str:
    """What stands for a forgotten sample's id: sha256 (hex)."""
    return hashlib.sha256(sample_id.encode()).hexdigest()
