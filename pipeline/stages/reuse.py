"""Takes columns from rows that a dataset already has.

`ReuseColumnsStage` takes those of unchanged features, from another version. `KeepColumnsStage` takes those of cells
that fail in a retry, from the row that is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.features import BoundFeature
from pipeline.core.errors import ConfigError
from pipeline.core.media import Modality
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard
from pipeline.stages._row_checks import covers_stored, has_feature, has_media, has_same_text, is_shared, same_times
from pipeline.stages.rows import put

_TIMES = ("start_s", "end_s")
_MAX_CACHED_SHARDS = 100


@dataclass(frozen=True)
class ReuseSource:
    """Another version of the dataset, and the features that have the same values in it.

    Args:
        root: folder of the version.
        snapshot: its snapshot.
        features: the features to take from it.
        read: the modalities that it read; they decide how its samples are cut into windows.
        own: it is the version that is written: only what cannot be computed now is taken.
        other_times: it was decoded by other rules, which may end windows at other times: a row is taken only if its
            times are equal.
    """

    root: str
    snapshot: Snapshot
    features: tuple[BoundFeature, ...]
    read: frozenset[Modality]
    own: bool = False
    other_times: bool = False


class StoredTimes:
    """The start and end times of stored rows. Reads two columns of a shard, once per process.

    Args:
        root: folder of the version.
        files: its shards; ``carry_file`` is an index in it.
    """

    def __init__(self, root: str, files: Sequence[File]) -> None:
        self.root, self.files = root, tuple(files)
        self.shards: dict[int, pa.Table] = {}

    def of(self, number: int, position: int) -> tuple[float | None, float | None]:
        """Returns the start and the end of a row, in seconds.

        Args:
            number: index of the shard.
            position: index of the row in it.

        Raises:
            ConfigError: the shard cannot be read.
        """
        if number not in self.shards:
            if len(self.shards) >= _MAX_CACHED_SHARDS:
                self.shards.clear()
            shard = self.files[number]
            with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
                check_columns(self.root, shard, file.schema_arrow, [*_TIMES])
                parts = file.parts(range(file.num_row_groups), _TIMES)
                pieces = [file.read_row_groups(part, columns=[*_TIMES], use_threads=False) for part in parts]
            self.shards[number] = pa.concat_tables(pieces)
        start_s, end_s = (self.shards[number][name][position].as_py() for name in _TIMES)
        return start_s, end_s


class ReuseColumnsStage:
    """Maps finished rows to finished rows: each one with ``carry_file`` gets the columns of ``features`` that its
    stored row of the other version has.

    Args:
        root: folder of the other version.
        files: its shards; ``carry_file`` is an index in it.
        features: the features to take.
    """

    def __init__(self, root: str, files: Sequence[File], features: tuple[BoundFeature, ...]) -> None:
        self.root, self.files, self.features = root, tuple(files), features

    def setup(self) -> None:
        """Loads nothing."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Maps a table. Raises ``ConfigError`` if a shard cannot be read or lacks a column."""
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~np.isnan(numbers.astype(np.float64)))
        if not len(rows) or not self.features:
            return table
        fields = [field for feature in self.features for field in feature.fields()]
        stored, positions = self._stored_rows(table, rows, [field.name for field in fields])
        index = pa.array(positions, mask=positions < 0)
        cells = table["cells"]
        for feature in self.features:
            valid = np.zeros(len(table), bool)
            for field in feature.fields():
                values = stored[field.name].take(index).cast(field.type)
                valid |= values.is_valid().to_numpy()
                computed = table[field.name].cast(field.type)
                table = put(table, field.name, _merge(computed, values, positions >= 0))
            cells = pc.add(cells, pa.array(valid.astype(np.int32)))
        return put(table, "cells", cells)

    def _stored_rows(self, table: pa.Table, rows: np.ndarray, columns: list[str]) -> tuple[pa.Table, np.ndarray]:
        """Reads the stored rows of ``rows``, at least one.

        Args:
            table: rows with ``carry_file`` and ``carry_position``.
            rows: indices of rows in ``table``.
            columns: names of the columns to read.

        Returns:
            the stored rows; and for each row of ``table`` the index of its stored row, or -1, int64 [rows of table].
        """
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        positions = table["carry_position"].to_numpy(zero_copy_only=False)
        stored, indices = [], []
        for number in np.unique(numbers[rows]):
            of_file = rows[numbers[rows] == number]
            stored.append(self._rows(int(number), positions[of_file].astype(np.int64), columns))
            indices.append(of_file)
        stored_index = np.full(len(table), -1)
        stored_index[np.concatenate(indices)] = np.arange(len(rows))
        return pa.concat_tables(stored).combine_chunks(), stored_index

    def _rows(self, number: int, positions: np.ndarray, columns: list[str]) -> pa.Table:
        """Reads rows of one shard, in the order of ``positions``. Only their row groups are read."""
        shard = self.files[number]
        with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
            check_columns(self.root, shard, file.schema_arrow, columns)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            groups = np.unique(np.searchsorted(starts, positions, side="right") - 1)
            parts = file.parts(groups.tolist(), columns)
            table = pa.concat_tables(file.read_row_groups(part, columns=columns, use_threads=False) for part in parts)
        starts_in_table = np.concatenate([[0], np.cumsum([sizes[group] for group in groups])])
        group = np.searchsorted(starts, positions, side="right") - 1
        indices = positions - starts[group] + starts_in_table[np.searchsorted(groups, group)]
        return table.take(pa.array(indices))


def _merge(computed: pa.ChunkedArray, stored: pa.ChunkedArray, use_stored: np.ndarray) -> pa.Array:
    """Returns ``stored`` where ``use_stored``, else ``computed``; with one take over both."""
    both = pa.chunked_array([*computed.chunks, *stored.chunks], computed.type).combine_chunks()
    rows = np.arange(len(use_stored))
    return both.take(pa.array(np.where(use_stored, rows + len(use_stored), rows)))


class KeepColumnsStage(ReuseColumnsStage):
    """Maps finished rows to finished rows: a row of a retry keeps what its stored row has of the features that fail
    now.

    The failure of a cell that is kept is dropped. A failure to open the file stays, since other windows may lack it.

    Args:
        root: folder of the version that is written.
        files: its shards; ``carry_file`` is an index in it.
        features: the features to keep.
        cuts_text: some feature cuts texts into windows of tokens. Then a window without times has a part of a text.
    """

    def __init__(
        self, root: str, files: Sequence[File], features: tuple[BoundFeature, ...], cuts_text: bool = False
    ) -> None:
        super().__init__(root, files, features)
        self.cuts_text = cuts_text

    def __call__(self, table: pa.Table) -> pa.Table:
        """Maps a table. Raises ``ConfigError`` if a shard cannot be read and a row has nothing that was computed."""
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        is_retry = ~np.isnan(numbers.astype(np.float64))
        missing = {feature.name: ~has_feature(table, feature) & is_retry for feature in self.features}
        rows = np.flatnonzero(np.any([*missing.values()], axis=0)) if missing else np.zeros(0, np.int64)
        if not len(rows):
            return table
        fields = [field for feature in self.features for field in feature.fields()]
        try:
            stored, positions = self._stored_rows(table, rows, [*_TIMES, *(field.name for field in fields)])
        except ConfigError:
            if (is_retry & ~has_media(table)).any():
                raise  # nothing of such a row was computed: it would be lost
            return table  # the stored rows are lost, and what was computed is used
        index = pa.array(positions, mask=positions < 0)
        equal_times = same_times(table, stored, index) & (positions >= 0)
        # a row without times has only what belongs to all windows
        untimed = (positions >= 0) & stored["start_s"].take(index).is_null().to_numpy()
        failures: list[list[dict[str, Any]]] = [one or [] for one in table["failures"].to_pylist()]
        cells = table["cells"].to_numpy(zero_copy_only=False).copy()
        for feature in self.features:
            kept = missing[feature.name] & has_feature(stored.take(index), feature)
            if feature.modality == "text" and self.cuts_text:
                kept &= equal_times & has_same_text(table)
            elif feature.modality == "image":
                kept &= positions >= 0
            elif feature.modality == "audio":
                kept &= equal_times | untimed | covers_stored(table, stored, index)
            else:
                kept &= equal_times | untimed
            if not kept.any():
                continue
            for field in feature.fields():
                values = stored[field.name].take(index).cast(field.type)
                table = put(table, field.name, _merge(table[field.name].cast(field.type), values, kept))
            for row in np.flatnonzero(kept).tolist():
                left = [one for one in failures[row] if one["feature"] != feature.name or is_shared(table, row, one)]
                cells[row] += 1 - (len(failures[row]) - len(left))
                failures[row] = left
        table = put(table, "cells", pa.array(cells, pa.int32()))
        return put(table, "failures", pa.array(failures, table.schema.field("failures").type))
