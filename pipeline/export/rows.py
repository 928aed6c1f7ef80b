"""The rows of a snapshot as batches, for an export: selected columns, checked values, types without metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import column_list
from pipeline.dataset import Dataset
from pipeline.dataset.feature_info import feature_columns
from pipeline.dataset.shards.reader import BATCH_ROWS


class Rows:
    """The rows of a snapshot that are not deleted, in order.

    Args:
        dataset: one snapshot.
        columns: names, or several names with commas between them; empty: all.
        on_batch: called with the number of rows so far, before each batch.

    Raises:
        ConfigError: an unknown column.
    """

    def __init__(self, dataset: Dataset, columns: Sequence[str], on_batch: Callable[[int], None]) -> None:
        known = dataset.schema.names
        self.dataset = dataset
        self.columns = column_list(columns, known, "--columns") or known
        self.schema = pa.schema([_plain_field(dataset.schema.field(name)) for name in self.columns])
        """The columns without metadata: other libraries give a meaning to the metadata of fields."""
        self.num_rows = dataset.num_rows
        self._on_batch = on_batch

    @property
    def parts(self) -> dict[str, str]:
        """The columns of features: name -> part (``embedding``, ``tokens``...)."""
        found = (pair for feature in self.dataset.features.values() for pair in feature_columns(feature))
        return {name: part for name, part in found if name in self.columns}

    def batches(self, extra: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yields batches of 1 to some hundred rows.

        Args:
            extra: further columns, which follow the others if those do not include them.

        Raises:
            ConfigError: a shard that is missing or cannot be read, or values that their types do not allow.
        """
        names = [*self.columns, *(name for name in extra if name not in self.columns)]
        fields = [_plain_field(self.dataset.schema.field(name)) for name in names]
        done = 0
        for batch in self.dataset.batches(names, batch_size=BATCH_ROWS):
            self._on_batch(done)
            done += len(batch)
            try:
                batch.validate(full=True)  # text that is not UTF-8, for example
            except pa.ArrowException as error:
                raise _unreadable(self.dataset.root, error) from error
            yield pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields))
        self._on_batch(done)


def _unreadable(root: str, error: Exception) -> ConfigError:
    return ConfigError(
        "path", f"rows of {root!r} cannot be read ({describe(error)})", "restore the shards, or see --columns"
    )


def _plain_field(field: pa.Field) -> pa.Field:
    """Returns a field without metadata, also in the fields of its type."""
    return pa.field(field.name, _plain_type(field.type), field.nullable)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    return kind
