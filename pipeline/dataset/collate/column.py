"""How the values of a column are converted to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.core.errors import ConfigError, describe
from pipeline.dataset.collate.ragged import Ragged, mask, padded, writable

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

    @property
    def is_ragged(self) -> bool:
        """Whether rows have different numbers of values."""
        return self.kind in ("sequence", "matrix")

    def rows(self, array: pa.Array) -> list[Any]:
        """Returns one value for each row: a tensor (a view of Arrow's memory), a Python value, or None for null."""
        if self.kind in ("scalar", "object"):
            return list(array.to_pylist())
        ragged = self._ragged_array(array)
        flat = tensor(ragged.values)
        bounds = zip(ragged.offsets[:-1].tolist(), ragged.offsets[1:].tolist(), ragged.valid.tolist(), strict=True)
        return [flat[start:end] if is_valid else None for start, end, is_valid in bounds]

    def value(self, found: Any) -> Any:
        """Converts a value from a numpy column to what `rows` returns."""
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

    def ragged(self, batch: pa.Array | Sequence[Any]) -> Ragged:
        """Returns the values of a column that is neither a scalar nor an object.

        Args:
            batch: an array, or one value for each row as `rows` returns them.
        """
        return self._ragged_array(batch) if isinstance(batch, pa.Array) else self._ragged_rows(batch)

    def tensors(self, name: str, batch: pa.Array | Sequence[Any]) -> dict[str, Any]:
        """Converts a column of a batch to tensors. See `Collate` for their shapes.

        Args:
            name: the column.
            batch: as for `ragged`.

        Returns:
            the tensor ``name``, and ``name_mask`` and ``name_valid`` if the column has them.

        Raises:
            ConfigError: vectors of different lengths, or a batch with too much padding.
        """
        if self.kind == "object":
            return {name: batch.to_pylist() if isinstance(batch, pa.Array) else list(batch)}
        if self.kind == "scalar":
            return self._scalars(name, batch)
        ragged = self.ragged(batch)
        found = {}
        if self.kind == "vector":
            found[name] = tensor(self._vectors(name, ragged))
        else:
            lengths = ragged.lengths
            longest = int(lengths.max(initial=0))
            self._check_padding(name, ragged, longest)
            is_value = mask(lengths, longest)
            found[name] = tensor(padded(ragged.values, is_value))
            found[f"{name}_mask"] = tensor(is_value)
        if self.nullable:
            found[f"{name}_valid"] = tensor(ragged.valid)
        return found

    def _vectors(self, name: str, ragged: Ragged) -> np.ndarray:
        """Returns [rows, width], with zeros for nulls."""
        lengths = ragged.lengths[ragged.valid]
        width = self.width or int(lengths.max(initial=0))
        if (wrong := lengths[lengths != width]).size:
            raise ConfigError(
                "columns", f"column {name!r} holds {wrong[0]} values where {width} belong", "restore the shards"
            )
        if ragged.valid.all():
            return ragged.values.reshape(ragged.rows, width)
        found = np.zeros((ragged.rows, width), ragged.values.dtype)
        found[ragged.valid] = ragged.values.reshape(-1, width)
        return found

    def _scalars(self, name: str, batch: pa.Array | Sequence[Any]) -> dict[str, Any]:
        import torch

        if isinstance(batch, pa.Array):
            valid = batch.is_valid().to_numpy(zero_copy_only=False)
            filled = batch.fill_null(False if pa.types.is_boolean(batch.type) else 0) if batch.null_count else batch
            numbers = tensor(filled.to_numpy(zero_copy_only=False).astype(self.dtype))
        else:
            valid = np.array([value is not None for value in batch], bool)
            numbers = torch.tensor([0 if value is None else value for value in batch], dtype=getattr(torch, self.dtype))
        return {name: numbers, f"{name}_valid": tensor(valid)} if self.nullable else {name: numbers}

    def _ragged_array(self, array: pa.Array) -> Ragged:
        return Ragged.of_array(array, (self.width or 1) if self.kind == "matrix" else None)

    def _ragged_rows(self, rows: Sequence[Any]) -> Ragged:
        return Ragged.of_rows(rows, self.dtype, (self.width or 1) if self.kind == "matrix" else None)

    def _check_padding(self, name: str, ragged: Ragged, longest: int) -> None:
        """Raises ``ConfigError`` for a batch that is larger than `MAX_PADDED_BYTES` and consists mostly of padding."""
        item_bytes = np.dtype(self.dtype).itemsize * (self.width or 1)
        padded_bytes, own_bytes = ragged.rows * longest * item_bytes, len(ragged.values) * item_bytes
        if padded_bytes > max(MAX_PADDED_BYTES, MAX_PADDING * own_bytes):
            raise ConfigError(
                "batch_size",
                f"{ragged.rows} rows of {name!r} take {padded_bytes} bytes, each as long as the longest, and hold "
                f"{own_bytes}",
                "smaller batches, `collate.packed`, or single rows",
            )


def columns_of(columns: Any, batch: Any) -> list[tuple[str, Any]]:
    """Returns (name, an array, or one value for each row) of each column of a batch.

    Args:
        columns: name -> `Column`.
        batch: a list of rows of `Dataset.to_torch`, an Arrow table or record batch, or a dict of numpy columns.
    """
    if isinstance(batch, pa.Table):
        arrays = [column.combine_chunks() for column in batch.columns]
        joined = [pa.concat_arrays(one.chunks) if isinstance(one, pa.ChunkedArray) else one for one in arrays]
        return list(zip(batch.column_names, joined, strict=True))
    if isinstance(batch, pa.RecordBatch):
        return list(zip(batch.schema.names, batch.columns, strict=True))
    if isinstance(batch, dict):
        return [(name, [columns[name].value(one) for one in found]) for name, found in batch.items()]
    return [(name, [row[name] for row in batch]) for name in (batch[0] if batch else ())]


def as_unreadable(name: str, error: Exception) -> ConfigError:
    """Returns the error for a column whose values are not what its type says: a null in a vector, a wrong time."""
    return ConfigError(
        "columns", f"column {name!r} cannot be read ({describe(error)})", "restore the shards, or leave it out"
    )


def tensor(array: np.ndarray) -> torch.Tensor:
    """Returns a tensor in the memory of ``array``, or in a copy of it if it is read-only."""
    import torch

    return torch.from_numpy(writable(array))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numpy_name(kind: pa.DataType) -> str:
    return "bool" if pa.types.is_boolean(kind) else str(np.dtype(kind.to_pandas_dtype()).name)
