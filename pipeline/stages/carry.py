"""Columns of features that did not change, taken from another version of the dataset instead of being computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.features import Feature
from pipeline.media import Modality
from pipeline.reading import Reading, check_columns, open_shard
from pipeline.snapshots import File, Snapshot
from pipeline.stages.rows import put


@dataclass(frozen=True)
class Carry:
    """Another version, and the features that it has with the same values."""

    root: str
    snapshot: Snapshot
    features: tuple[Feature, ...]
    read: frozenset[Modality]
    """What that version read: its windows are cut by it."""


class CarryStage:
    """Maps finished rows to finished rows: those with ``carry_file`` gain the columns of ``features`` that the row of
    the other version has.

    Args:
        root: the other version's folder.
        files: its shards, numbered as ``carry_file`` does.
    """

    def __init__(self, root: str, files: Sequence[File], features: tuple[Feature, ...]) -> None:
        self.root, self.files, self.features = root, tuple(files), features

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        here = np.flatnonzero(~np.isnan(numbers.astype(np.float64)))
        if not len(here) or not self.features:
            return table
        positions = table["carry_position"].to_numpy(zero_copy_only=False)
        fields = [field for feature in self.features for field in feature.fields()]
        old, rows = [], []
        for number in np.unique(numbers[here]):
            of_file = here[numbers[here] == number]
            old.append(self._rows(int(number), positions[of_file].astype(np.int64), [field.name for field in fields]))
            rows.append(of_file)
        place = np.full(len(table), -1)
        place[np.concatenate(rows)] = np.arange(len(here))
        taken = pa.concat_tables(old).combine_chunks()
        index = pa.array(place, mask=place < 0)
        cells = table["cells"]
        for feature in self.features:
            valid = np.zeros(len(table), bool)
            for field in feature.fields():
                values = taken[field.name].take(index).cast(field.type)
                valid |= values.is_valid().to_numpy()
                computed = table[field.name].cast(field.type)
                table = put(table, field.name, _either(computed, values, place >= 0))
            cells = pc.add(cells, pa.array(valid.astype(np.int32)))
        return put(table, "cells", cells)

    def _rows(self, number: int, positions: np.ndarray, columns: list[str]) -> pa.Table:
        """Rows of one file, in the order asked for; only their row groups are read."""
        shard = self.files[number]
        with Reading(self.root, shard), open_shard(self.root, shard) as file:
            check_columns(self.root, shard, file.schema_arrow, columns)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            groups = np.unique(np.searchsorted(starts, positions, side="right") - 1)
            table = file.read_row_groups(groups.tolist(), columns=columns, use_threads=False)
        before = np.concatenate([[0], np.cumsum([sizes[group] for group in groups])])
        group = np.searchsorted(starts, positions, side="right") - 1
        at = positions - starts[group] + before[np.searchsorted(groups, group)]
        return table.take(pa.array(at))


def _either(computed: pa.ChunkedArray, carried: pa.ChunkedArray, which: np.ndarray) -> pa.Array:
    """``carried`` where ``which``, else ``computed``: one take over both."""
    both = pa.chunked_array([*computed.chunks, *carried.chunks], computed.type).combine_chunks()
    rows = np.arange(len(which))
    return both.take(pa.array(np.where(which, rows + len(which), rows)))
