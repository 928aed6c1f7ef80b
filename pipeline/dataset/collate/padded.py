"""Collate: batches as tensors, padded to the longest row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

from pipeline.dataset.collate.column import Column, as_unreadable, columns_of, tensor

if TYPE_CHECKING:
    from pipeline.dataset.collate.jagged import JaggedCollate
    from pipeline.dataset.collate.packed import PackedCollate
    from pipeline.dataset.collate.ragged import Ragged

Batch: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Any] | pa.Table | pa.RecordBatch
"""What a collate function accepts: a list of rows of `Dataset.to_torch`, an Arrow table or record batch, or a dict of
numpy columns."""


@dataclass(frozen=True)
class Collate:
    """Converts many rows to one batch of tensors, for a `DataLoader` or Ray's ``iter_torch_batches``. Picklable.

    It accepts a list of rows of `Dataset.to_torch`, an Arrow table or record batch, or a dict of numpy columns. For a
    column ``c`` the batch has:

    - ``c``: embeddings [B, D], grids [B, 3], numbers [B]; tokens [B, N, d], token ids [B, N] and times [B, T], padded
      with zeros to the longest row. Other columns are lists of Python values.
    - ``c_mask``, if ``c`` is padded: [B, N] bool, True for values that are not padding.
    - ``c_valid``, if ``c`` may be null: [B] bool, False for nulls, whose values are zeros.
    """

    columns: Mapping[str, Column]

    def __call__(self, batch: Batch) -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for name, found in self.arrays_of(batch):
            tensors |= self.tensors(name, found)
        return tensors

    def packed(self, length: int | None = None, long: Literal["error", "cut"] = "error") -> PackedCollate:
        """Returns a collate function without padding, or with little. See `PackedCollate`."""
        from pipeline.dataset.collate.packed import PackedCollate

        return PackedCollate(self, length, long)

    def jagged(self) -> JaggedCollate:
        """Returns a collate function that makes nested tensors. See `JaggedCollate`."""
        from pipeline.dataset.collate.jagged import JaggedCollate

        return JaggedCollate(self)

    def columns_of(self, batch: Batch) -> Iterator[tuple[str, list[Any]]]:
        """Yields (name, one value for each row) of each column of a batch."""
        for name, found in self.arrays_of(batch):
            yield name, self._rows(name, found) if isinstance(found, pa.Array) else found

    def arrays_of(self, batch: Batch) -> list[tuple[str, pa.Array | list[Any]]]:
        """Returns (name, an array, or one value for each row) of each column of a batch."""
        return columns_of(self.columns, batch)

    def ragged(self, name: str, found: pa.Array | list[Any]) -> Ragged:
        """Returns the values of one column that is neither a scalar nor an object."""
        try:
            return self.columns[name].ragged(found)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise as_unreadable(name, error) from error

    def tensors(self, name: str, found: pa.Array | list[Any]) -> dict[str, Any]:
        """Returns the padded tensors of one column."""
        try:
            return self.columns[name].tensors(name, found)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise as_unreadable(name, error) from error

    def with_ragged(self, batch: Batch, convert: Callable[[str, Ragged], dict[str, Any]]) -> dict[str, Any]:
        """Returns a batch whose columns of tokens, token ids and times ``convert`` makes, with ``c_valid`` for each."""
        tensors: dict[str, Any] = {}
        for name, found in self.arrays_of(batch):
            if not self.columns[name].is_ragged:
                tensors |= self.tensors(name, found)
                continue
            ragged = self.ragged(name, found)
            tensors |= convert(name, ragged)
            tensors[f"{name}_valid"] = tensor(ragged.valid)
        return tensors

    def _rows(self, name: str, array: pa.Array) -> list[Any]:
        try:
            return self.columns[name].rows(array)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise as_unreadable(name, error) from error
