"""The rows of a batch that have all values a collate function needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate
from pipeline.dataset.collate.column import tensor
from pipeline.dataset.collate.padded import Batch
from pipeline.dataset.collate.ragged import Ragged
from pipeline.dataset.loading.place import Place

Values: TypeAlias = pa.Array | list[Any]
"""Values of a column: an array, or one value for each row."""


@dataclass(frozen=True)
class KeptRows:
    """The rows of a batch that have enough of some columns."""

    collate: Collate
    columns: dict[str, Values]
    """Of the kept rows only."""
    kept: np.ndarray
    """[rows of the batch] bool."""

    @classmethod
    def of(cls, collate: Collate, batch: Batch, names: Sequence[str], least: int | None = None) -> KeptRows:
        """Returns the rows whose values in ``least`` of the columns ``names`` are neither null nor empty.

        Args:
            collate: the columns.
            batch: see `Collate`.
            names: columns.
            least: None: all of them.

        Raises:
            ConfigError: a column that the batch does not have.
        """
        columns = dict(collate.arrays_of(batch))
        for name in names:
            if name not in columns:
                raise ConfigError("columns", f"{name!r} was not read", f"one of: {', '.join(columns)}")
        present = np.stack([_present(columns[name]) for name in names])
        kept = present.sum(axis=0) >= (len(names) if least is None else least)
        if not kept.all():
            columns = {name: _taken(values, kept) for name, values in columns.items()}
        return cls(collate, columns, kept)

    def with_values(self, name: str) -> KeptRows:
        """Returns those of the rows in which a column is not null."""
        if name not in self.columns:
            raise ConfigError("columns", f"{name!r} was not read", f"one of: {', '.join(self.columns)}")
        present = _present(self.columns[name])
        if present.all():
            return self
        kept = self.kept.copy()
        kept[kept] = present
        return KeptRows(self.collate, {one: _taken(values, present) for one, values in self.columns.items()}, kept)

    def place(self, place: Place | None) -> Place:
        """Returns the place of the kept rows. Raises ``ConfigError`` if there is none."""
        if place is None:
            raise ConfigError(
                "place",
                "not given, so that the masks of all batches would be alike",
                "a reader of batches (to_torch with batch_size), which passes it, or Place.of_ids(epoch, ids)",
            )
        if len(place.rows) != len(self.kept):
            raise ConfigError("place", f"of {len(place.rows)} rows, but the batch has {len(self.kept)}", "one of each")
        return place.take(self.kept)

    def ragged(self, name: str) -> Ragged:
        """Returns the values of a column."""
        return self.collate.ragged(name, self.columns[name])

    def tensors(self, leave_out: Sequence[str] = ()) -> dict[str, Any]:
        """Returns the padded tensors of the columns, and ``left_out``, the number of rows that are not kept: [] int64.

        Args:
            leave_out: columns.
        """
        import torch

        found: dict[str, Any] = {}
        for name, values in self.columns.items():
            if name not in leave_out:
                found |= self.collate.tensors(name, values)
        return {**found, "left_out": torch.tensor(int((~self.kept).sum()))}


def merged(tensors: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Returns ``tensors`` with those of ``added``, whose arrays become tensors.

    Raises ``ConfigError`` if a column has the name of one.
    """
    for name in added:
        if name in tensors:
            raise ConfigError("columns", f"{name!r} is a name that the collate function adds", "leave this column out")
    return tensors | {name: tensor(one) if isinstance(one, np.ndarray) else one for name, one in added.items()}


def check_column(collate: Collate, name: str, kinds: Sequence[str], what: str) -> None:
    """Raises ``ConfigError`` if a column is missing or is of another kind.

    Args:
        collate: the columns.
        name: column.
        kinds: kinds of `Column` that are allowed.
        what: what the column should hold, for the message.
    """
    if name not in collate.columns:
        fitting = [one for one, column in collate.columns.items() if column.kind in kinds]
        raise ConfigError("columns", f"there is no column {name!r}", f"one of: {', '.join(fitting) or 'none has them'}")
    if collate.columns[name].kind not in kinds:
        raise ConfigError("columns", f"{name!r} does not hold {what}", f"a column of {what}")


def _present(values: Values) -> np.ndarray:
    """Returns [rows] bool: which values are neither null nor an empty list."""
    if isinstance(values, list):
        return np.array([value is not None and (not _is_sequence(value) or len(value) > 0) for value in values], bool)
    found: np.ndarray = values.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_list(values.type):
        found = found & (np.diff(values.offsets.to_numpy()) > 0)
    return found


def _is_sequence(value: Any) -> bool:
    """Returns whether a value is a tensor or an array, not a text or a number."""
    return hasattr(value, "shape") and len(value.shape) > 0


def _taken(values: Values, kept: np.ndarray) -> Values:
    if isinstance(values, list):
        return [value for value, is_kept in zip(values, kept.tolist(), strict=True) if is_kept]
    return values.filter(pa.array(kept))
