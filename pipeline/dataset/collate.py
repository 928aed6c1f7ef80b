"""Collate: rows of a dataset as torch tensors. Single rows are views of Arrow's memory.

Batches may have nulls, and lists of different lengths, which are padded.

torch is imported when the first tensor is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError, describe

if TYPE_CHECKING:
    import torch

MAX_PADDED_BYTES = 1 << 30
"""A padded column of a batch may always have this many bytes."""
MAX_PADDING = 16
"""A larger column may have at most this many times the bytes of its values without padding."""
Kind = Literal["vector", "sequence", "matrix", "scalar", "object"]
"""vector: all rows have the same length. sequence: any length. matrix: any number of vectors of one width. scalar: a
number. object: a Python value."""


@dataclass(frozen=True)
class Column:
    """How a column is converted to tensors."""

    kind: Kind
    dtype: str
    """numpy's name of the dtype."""
    width: int | None
    """Values in a vector, or in each vector of a matrix; None: not known."""
    nullable: bool

    @classmethod
    def of(cls, field: pa.Field, part: str | None, width: int | None) -> Column:
        """Returns the conversion for a column of the schema.

        Args:
            field: the column.
            part: the part of a feature that it stores (``embedding``, ``grid``...); None: it is not a feature's.
            width: values in an embedding; None: not known, or no embedding.
        """
        if part in ("tokens", "prefix_tokens"):
            inner = field.type.value_type
            return cls("matrix", _numpy_name(inner.value_type), inner.list_size, True)
        if part is not None:
            kind: Kind = "vector" if part in ("embedding", "grid") else "sequence"
            return cls(kind, _numpy_name(field.type.value_type), 3 if part == "grid" else width, True)
        if _is_number(field.type):
            return cls("scalar", _numpy_name(field.type), None, field.nullable)
        return cls("object", "object", None, field.nullable)

    def values(self, array: pa.Array) -> list[Any]:
        """Returns one value for each row: a tensor (a view of Arrow's memory), a Python value, or None for null."""
        if self.kind in ("scalar", "object"):
            return list(array.to_pylist())
        width = 1
        if pa.types.is_fixed_size_list(array.type):
            child = array.flatten()  # leaves out the values that are allocated for nulls
            is_present = array.is_valid().to_numpy(zero_copy_only=False)
            offsets = np.concatenate([[0], np.cumsum(is_present, dtype=np.int64)]) * array.type.list_size
        else:
            child, offsets = array.values, array.offsets.to_numpy().astype(np.int64)
        if self.kind == "matrix":
            width, offsets, child = self.width or 1, offsets + child.offset, child.values
        flat, bounds = _view(child), offsets * width
        shape = (-1, width) if self.kind == "matrix" else (-1,)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        return [
            flat[start:end].view(shape) if ok else None
            for start, end, ok in zip(bounds[:-1].tolist(), bounds[1:].tolist(), valid, strict=True)
        ]

    def value(self, found: Any) -> Any:
        """Converts a value from a numpy column to what `values` returns."""
        import torch

        if found is None or self.kind == "object":
            return found
        if self.kind == "scalar":
            is_missing = self.nullable and isinstance(found, float | np.floating) and np.isnan(found)
            return None if is_missing else found
        nested = isinstance(found, np.ndarray) and found.dtype.kind == "O" and len(found) > 0
        array = np.stack(list(found)) if nested else np.asarray(found)
        shaped = array.reshape(-1, self.width or 1) if self.kind == "matrix" else array
        return torch.from_numpy(shaped.astype(self.dtype))

    def stack(self, name: str, values: list[Any]) -> dict[str, Any]:
        """Converts the values of a batch to tensors. See `Collate` for their shapes.

        Args:
            name: the column.
            values: one for each row, as `values` returns them.

        Returns:
            the tensor ``name``, and ``name_mask`` and ``name_valid`` if the column has them.

        Raises:
            ConfigError: vectors of different lengths, or a batch with too much padding.
        """
        import torch

        if self.kind == "object":
            return {name: values}
        dtype = getattr(torch, self.dtype)
        present = [(i, value) for i, value in enumerate(values) if value is not None]
        tensors: dict[str, Any] = {}
        if self.kind == "scalar":
            tensors[name] = torch.tensor([0 if value is None else value for value in values], dtype=dtype)
        elif self.kind == "vector":
            width = self.width or max((len(value) for _, value in present), default=0)
            if wrong := [len(value) for _, value in present if len(value) != width]:
                raise ConfigError(
                    "columns", f"column {name!r} holds {wrong[0]} values where {width} belong", "restore the shards"
                )
            tensors[name] = torch.zeros(len(values), width, dtype=dtype)
            for i, value in present:
                tensors[name][i] = value
        else:
            longest = max((len(value) for _, value in present), default=0)
            tail = (self.width or 1,) if self.kind == "matrix" else ()
            self._check_padding(name, [len(value) for _, value in present], len(values))
            tensors[name] = torch.zeros(len(values), longest, *tail, dtype=dtype)
            tensors[f"{name}_mask"] = torch.zeros(len(values), longest, dtype=torch.bool)
            for i, value in present:
                tensors[name][i, : len(value)] = value
                tensors[f"{name}_mask"][i, : len(value)] = True
        if self.nullable:
            tensors[f"{name}_valid"] = torch.tensor([value is not None for value in values], dtype=torch.bool)
        return tensors

    def _check_padding(self, name: str, lengths: list[int], rows: int) -> None:
        """Raises ``ConfigError`` for a batch that is larger than `MAX_PADDED_BYTES` and consists mostly of padding."""
        item_bytes = np.dtype(self.dtype).itemsize * (self.width or 1)
        padded_bytes, own_bytes = rows * max(lengths, default=0) * item_bytes, sum(lengths) * item_bytes
        if padded_bytes > max(MAX_PADDED_BYTES, MAX_PADDING * own_bytes):
            raise ConfigError(
                "batch_size",
                f"{rows} rows of {name!r} take {padded_bytes} bytes, each as long as the longest, and hold {own_bytes}",
                "smaller batches, or single rows",
            )


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

    def __call__(self, batch: Sequence[Mapping[str, Any]] | Mapping[str, Any] | pa.Table | pa.RecordBatch) -> Any:
        tensors: dict[str, Any] = {}
        for name, values in self.columns_of(batch):
            tensors |= self.columns[name].stack(name, values)
        return tensors

    def columns_of(self, batch: Any) -> Iterator[tuple[str, list[Any]]]:
        """Yields (name, one value for each row) of each column of a batch."""
        if isinstance(batch, pa.Table):
            for name, chunked in zip(batch.column_names, batch.columns, strict=True):
                yield name, [value for chunk in chunked.chunks for value in self._values(name, chunk)]
        elif isinstance(batch, pa.RecordBatch):
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                yield name, self._values(name, array)
        elif isinstance(batch, Mapping):
            for name, found in batch.items():
                yield name, [self.columns[name].value(one) for one in found]
        elif batch:
            for name in batch[0]:
                yield name, [row[name] for row in batch]

    def _values(self, name: str, array: pa.Array) -> list[Any]:
        try:
            return self.columns[name].values(array)
        except (
            pa.ArrowException,
            ValueError,
            OverflowError,
        ) as error:  # a null in a vector, a time out of range
            raise ConfigError(
                "columns", f"column {name!r} cannot be read ({describe(error)})", "restore the shards, or leave it out"
            ) from error


def _view(values: pa.Array) -> torch.Tensor:
    """Returns a tensor [len(values)] that is a view of Arrow's memory.

    It is a copy if that memory is read-only, because torch has no read-only tensors.
    """
    import torch

    array = values.to_numpy(zero_copy_only=True)
    buffer = values.buffers()[1]
    if len(array) and buffer.is_mutable:
        return torch.from_numpy(np.frombuffer(buffer, array.dtype, len(array), values.offset * array.itemsize))
    return torch.from_numpy(array.copy())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numpy_name(kind: pa.DataType) -> str:
    return "bool" if pa.types.is_boolean(kind) else str(np.dtype(kind.to_pandas_dtype()).name)
