"""Rows by their position or their id, for samplers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate
from pipeline.dataset.loading.decoded import DecodedGroup, GroupReader, gather_rows
from pipeline.dataset.loading.sequence import Source

Key = int | tuple[str, int]
"""Position of a row in the stored order, or its ``sample_id`` and ``window``."""
_KEYS = ("sample_id", "window")


class MapReader:
    """The rows of a snapshot by position, or by (sample_id, window). `Dataset.to_map` makes it. Picklable.

    It is a map-style dataset for torch's ``DataLoader``: rows are dicts, as those of `Dataset.to_torch`. To read a row,
    its whole row group is decoded, unless it is among those that were decoded last. So a sampler that takes rows at
    random costs a row group for each row, and one that takes neighbouring rows costs little; ``to_torch`` with
    ``shuffle=True`` decodes each row group once.

    Args:
        source: the dataset.
        collate: converts columns.
        max_open_bytes: bytes of the decoded row groups that are kept.
    """

    def __init__(self, source: Source, collate: Collate, max_open_bytes: int) -> None:
        self.source, self.collate, self.max_open_bytes = source, collate, max_open_bytes
        self.decoded_groups = 0
        """Row groups, each as often as it was decoded."""
        self._open: OrderedDict[int, DecodedGroup] = OrderedDict()

    def __len__(self) -> int:
        return self.source.index.rows

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Returns a row. Raises ``IndexError`` or ``KeyError`` if there is none."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """Returns several rows. ``DataLoader`` calls it for each batch."""
        batch = self.read(keys)
        columns = dict(self.collate.columns_of(batch))
        return [{name: values[i] for name, values in columns.items()} for i in range(len(batch))]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def read(self, keys: Sequence[Key]) -> pa.RecordBatch:
        """Returns several rows, in this order, as one batch. Each row group is decoded once for all of them.

        Raises:
            IndexError: a position that does not exist.
            KeyError: an id that does not exist.
            ConfigError: a row group cannot be read.
        """
        positions = np.array([self._position(key) for key in keys], np.int64)
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        order = np.argsort(groups, kind="stable")
        parts = []
        for number in np.unique(groups):
            rows = positions[order[groups[order] == number]] - self._starts[number]
            taken = self._group(int(number)).taken(self._reader.schema, rows)  # a batch may be of all groups
            parts.append((taken, np.arange(len(rows))))
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=self._reader.schema)
        batch = gather_rows(self._reader.schema, parts)
        if np.array_equal(order, np.arange(len(order))):
            return batch
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        whole = DecodedGroup.of(pa.Table.from_batches([batch]), None)
        return gather_rows(self._reader.schema, [(whole, back)])

    def position(self, sample_id: str, window: int = 0) -> int:
        """Returns the position of a row. Reads all ids the first time. Raises ``KeyError`` if there is none."""
        ids, windows, order = self._ids
        low, high, wanted = 0, len(order), (sample_id.encode(), window)
        while low < high:
            middle = (low + high) // 2
            at = int(order[middle])
            if (ids[at].as_py(), int(windows[at])) < wanted:
                low = middle + 1
            else:
                high = middle
        if low < len(order) and (ids[at := int(order[low])].as_py(), int(windows[at])) == wanted:
            return at
        raise KeyError((sample_id, window))

    def _position(self, key: Key) -> int:
        if isinstance(key, tuple):
            return self.position(*key)
        position = int(key)
        if not -len(self) <= position < len(self):
            raise IndexError(f"row {position} of {len(self)}")
        return position % len(self)

    def _group(self, number: int) -> DecodedGroup:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        group = self._reader.read(number)
        self.decoded_groups += 1
        if group.bytes > self.max_open_bytes:
            raise ConfigError(
                "max_open_bytes", f"{self.max_open_bytes}, but a row group takes {group.bytes} bytes", "a larger number"
            )
        while self._open and group.bytes + sum(one.bytes for one in self._open.values()) > self.max_open_bytes:
            self._open.popitem(last=False)
        self._open[number] = group
        return group

    @cached_property
    def _reader(self) -> GroupReader:
        return self.source.reader()

    @cached_property
    def _starts(self) -> np.ndarray:
        """The position of the first row of each group."""
        sizes = self.source.index.sizes
        found: np.ndarray = np.cumsum(sizes) - sizes
        return found

    @cached_property
    def _ids(self) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
        """The sample ids as bytes, the windows, and the positions in the order of both."""
        data, index = self.source.data, self.source.index
        schema = pa.schema([data.schema.field(name) for name in _KEYS])
        reader = GroupReader(data.root, data.shards, index, schema)
        batches = [schema.empty_table()]
        for number in range(len(index)):
            group = reader.read(number)
            rows = np.arange(int(index.sizes[number]))
            batches.append(pa.Table.from_batches([gather_rows(schema, [(group, rows)])]))
        table = pa.concat_tables(batches)
        table = table.set_column(0, "sample_id", table["sample_id"].cast(pa.large_binary()).combine_chunks())
        order = pc.sort_indices(table, [(name, "ascending") for name in _KEYS]).to_numpy()
        return table["sample_id"], table["window"].to_numpy(), order

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_reader"}
        return {**kept, "_open": OrderedDict()}
