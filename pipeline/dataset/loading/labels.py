"""Joins a table of labels to the rows of a dataset, by ``sample_id``, and by ``window`` if the table has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import ConfigError
from pipeline.core.schema import FIXED
from pipeline.dataset.loading.index import Index
from pipeline.dataset.loading.memory.decoded_bytes import group_bytes, row_bytes
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard

if TYPE_CHECKING:
    from pipeline.dataset.reader import Dataset

_ID, _WINDOW = "sample_id", "window"
_WINDOWS = 1 << 31
"""A window's number has 32 bits."""


def check_labels(labels: pa.Table, columns: Sequence[str]) -> None:
    """Raises ``ConfigError`` for a table that cannot be joined to ``columns``."""
    if _ID not in labels.schema.names:
        raise ConfigError("labels", f"no column {_ID!r}", f"a table with {_ID}, window or not, and further columns")
    for name in _keys(labels):
        kind = FIXED.field(name).type
        if labels.schema.names.count(name) != 1 or not _is_key(labels.schema.field(name).type, kind):
            raise ConfigError("labels", f"column {name!r} of {labels.schema.field(name).type}", f"one of type {kind}")
        if labels[name].null_count:
            raise ConfigError("labels", f"{labels[name].null_count} nulls in column {name!r}", "a value in each row")
    if _WINDOW in labels.schema.names:
        for number in pc.min_max(labels[_WINDOW]).as_py().values():
            if number is not None and not -_WINDOWS <= number < _WINDOWS:
                raise ConfigError("labels", f"window {number}", f"{-_WINDOWS} to {_WINDOWS - 1}")
    names = label_columns(labels).schema.names
    if twice := [name for name in names if name in columns or names.count(name) > 1]:
        raise ConfigError("labels", f"column {twice[0]!r} is there twice", "another name for it")
    keys = _keys(labels)
    unique = labels.select(keys).group_by(keys, use_threads=False).aggregate([])
    if len(unique) < len(labels):
        raise ConfigError("labels", f"{len(labels) - len(unique)} rows with the {' and '.join(keys)} of others", "one")


def label_columns(labels: pa.Table) -> pa.Table:
    """Returns the columns that are added."""
    return labels.select([name for name in labels.schema.names if name not in (_ID, _WINDOW)])


def join_labels(data: Dataset, index: Index, labels: pa.Table) -> Index:
    """Returns the index of the rows that have a label, with the row of ``labels`` for each.

    Reads ``sample_id``, and ``window`` if ``labels`` has it, of all rows, one row group after the other.
    """
    lookup = _Lookup(labels)
    kept = [np.empty(0, np.uint32)] * len(index)
    rows = [np.empty(0, np.int64)] * len(index)
    for shard in np.unique(index.shards).tolist():
        for number, positions, keys in _groups(data, index, shard, lookup.schema):
            found = lookup.rows(keys)
            kept[number], rows[number] = positions[found >= 0].astype(np.uint32), found[found >= 0]
    sizes = np.array([len(one) for one in kept], np.int64)
    present = np.flatnonzero(sizes)
    arrays = {name: getattr(index, name)[present] for name in ("shards", "groups", "firsts", "stored", "decoded_bytes")}
    label_bytes = row_bytes(label_columns(labels))
    open_bytes, decoding_bytes = group_bytes(arrays["decoded_bytes"], arrays["stored"], sizes[present], label_bytes)
    return replace(
        index,
        **arrays,
        sizes=sizes[present],
        bytes=open_bytes,
        decoding_bytes=decoding_bytes,
        kept=tuple(kept[i] for i in present),
        labels=tuple(rows[i] for i in present),
    )


class _Lookup:
    """Finds rows of a table of labels by their keys. Arrow's own join crashed at random (pyarrow 26).

    Args:
        labels: a table that `check_labels` has accepted.
    """

    def __init__(self, labels: pa.Table) -> None:
        self.names = _keys(labels)
        self.schema = pa.schema([FIXED.field(name).with_nullable(True) for name in self.names])
        table = labels.select(self.names).cast(self.schema)
        self._ids = pc.unique(table[_ID])
        self._numbers = self._numbered(table)

    def rows(self, keys: pa.Table) -> np.ndarray:
        """Returns for each row of ``keys``, a table of ``schema``, the row of the labels, or -1 [rows] (int64)."""
        found = pc.index_in(self._numbered(keys), value_set=self._numbers)
        numbers: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers

    def _numbered(self, table: pa.Table) -> pa.Array:
        """Returns a number for each key; null: its ``sample_id`` is not among the labels."""
        found = pc.index_in(table[_ID], value_set=self._ids).combine_chunks().cast(pa.int64())
        if _WINDOW in self.names:
            found = pc.add(pc.multiply(found, 2 * _WINDOWS), table[_WINDOW].combine_chunks().cast(pa.int64()))
        return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _groups(
    data: Dataset, index: Index, shard_number: int, schema: pa.Schema
) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
    """Yields for each group of a shard its number, the positions of its rows, and their keys."""
    shard, numbers = data.shards[shard_number], np.flatnonzero(index.shards == shard_number)
    with ShardErrors(data.root, shard), open_shard(data.root, shard) as file:
        keys = schema.names
        check_columns(data.root, shard, file.schema_arrow, keys)
        deleted = np.array(shard.deleted, np.int64)
        groups = dict(zip(index.groups[numbers].tolist(), numbers.tolist(), strict=True))
        for group in (group for part in file.parts(list(groups), keys) for group in part):
            table = file.read_row_group(group, columns=keys, use_threads=False).select(keys)
            positions = index.positions(groups[group], deleted)
            if positions is None:
                positions = np.arange(len(table))
            yield groups[group], positions, table.take(pa.array(positions)).cast(schema)


def _keys(labels: pa.Table) -> list[str]:
    return [_ID, _WINDOW] if _WINDOW in labels.schema.names else [_ID]


def _is_key(found: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_integer(kind):
        return bool(pa.types.is_integer(found))
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
