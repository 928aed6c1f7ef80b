"""The result of comparing a corpus with a dataset."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Counts:
    """Numbers of samples by class, unless a field says rows."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    """Without the retried ones."""
    deleted: int = 0
    retried: int = 0
    """Unchanged, with a failure that is tried again."""
    forgotten: int = 0
    forbidden: int = 0
    """Listed, with a file outside of the roots that the source allows. Their stored rows are kept."""
    adopted: int = 0
    """New, changed or retried, and completed by an interrupted run: nothing is left to compute."""
    rows_adopted: int = 0
    """Rows and failed rows that are adopted from interrupted runs."""
    rows_adopted_with_failures: int = 0
    new_rows_adopted: int = 0
    """The part of ``rows_adopted`` that belongs to new or changed samples."""
    new_rows_adopted_with_failures: int = 0

    def add(self, other: Counts) -> None:
        """Adds the counts of ``other`` to these."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Difference:
    """What a run has to change. The samples to compute are not part of it: `compare` emits them as it finds them."""

    counts: Counts = field(default_factory=Counts)
    work: int = 0
    """Number of samples to compute."""
    drops: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """Number of a file -> arrays of positions of the rows to delete."""

    def leave(self, samples: pa.Table) -> None:
        """Takes samples out of the work: their stored rows are kept, and what interrupted runs left of them is deleted.

        Args:
            samples: some of the samples to compute, with the columns of ``IF_DONE``.
        """
        self.work -= len(samples)
        for name in ("rows_adopted", "rows_adopted_with_failures"):
            of_new = samples[f"/{name}"].filter(samples["/is_new"])
            for counted, column in ((name, samples[f"/{name}"]), (f"new_{name}", of_new)):
                setattr(self.counts, counted, getattr(self.counts, counted) - (pc.sum(column).as_py() or 0))
        for file, positions in _by_file(samples["/drops"]):
            dropped = np.concatenate(self.drops.pop(file))
            if len(kept := np.setdiff1d(dropped, positions)):
                self.drops[file] = [kept]
        for file, positions in _by_file(samples["/adopted"]):
            self.drops[file].append(positions)


def _by_file(column: pa.ChunkedArray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each file of a column of ``IF_DONE``, and the positions in it."""
    places = pc.list_flatten(column).combine_chunks()
    files, positions = places.field("file").to_numpy(), places.field("position").to_numpy()
    for file in np.unique(files):
        yield int(file), positions[files == file]


class DuplicateIdError(Exception):
    """Two samples have the same id, which is the only argument."""


def sample_hash(sample_id: str) -> str:
    """Returns the sha256 (hex) of an id, which is stored in place of the id of a forgotten sample."""
    return hashlib.sha256(sample_id.encode()).hexdigest()
