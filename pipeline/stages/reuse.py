"""Columns taken from rows that a dataset has: of features that did not change, from another version of it; and of cells
that fail where a row is computed once more, from the row that is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.features import BoundFeature
from pipeline.core.errors import ConfigError
from pipeline.core.media import MODALITIES, Modality
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard
from pipeline.stages.rows import put

_TIMES = ("start_s", "end_s")
_KNOWN_SHARDS = 100


@dataclass(frozen=True)
class ReuseSource:
    """Another version, and the features that it has with the same values."""

    root: str
    snapshot: Snapshot
    features: tuple[BoundFeature, ...]
    read: frozenset[Modality]
    """What that version read: its windows are cut by it."""
    own: bool = False
    """It is the version that is written: only what cannot be computed now is taken."""
    other_times: bool = False
    """It was made by other rules of decoding, which may end windows elsewhere: a row is taken only if its times are
    those of today."""


class StoredTimes:
    """Where the windows of another version's rows begin and end. Reads two columns of a shard, once a process.

    Args:
        root: the other version's folder.
        files: its shards, numbered as ``carry_file`` does.
    """

    def __init__(self, root: str, files: Sequence[File]) -> None:
        self.root, self.files = root, tuple(files)
        self.known: dict[int, pa.Table] = {}

    def of(self, number: int, position: int) -> tuple[float | None, float | None]:
        """The times of the row at a position of a file. Raises ``ConfigError`` for a shard that cannot be read."""
        if number not in self.known:
            if len(self.known) >= _KNOWN_SHARDS:
                self.known.clear()
            shard = self.files[number]
            with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
                check_columns(self.root, shard, file.schema_arrow, [*_TIMES])
                parts = file.parts(range(file.num_row_groups), _TIMES)
                pieces = [file.read_row_groups(part, columns=[*_TIMES], use_threads=False) for part in parts]
            self.known[number] = pa.concat_tables(pieces)
        start_s, end_s = (self.known[number][name][position].as_py() for name in _TIMES)
        return start_s, end_s


class ReuseColumnsStage:
    """Maps finished rows to finished rows: those with ``carry_file`` gain the columns of ``features`` that the row of
    the other version has.

    Args:
        root: the other version's folder.
        files: its shards, numbered as ``carry_file`` does.
    """

    def __init__(self, root: str, files: Sequence[File], features: tuple[BoundFeature, ...]) -> None:
        self.root, self.files, self.features = root, tuple(files), features

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        here = np.flatnonzero(~np.isnan(numbers.astype(np.float64)))
        if not len(here) or not self.features:
            return table
        fields = [field for feature in self.features for field in feature.fields()]
        taken, place = self._taken(table, here, [field.name for field in fields])
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

    def _taken(self, table: pa.Table, here: np.ndarray, columns: list[str]) -> tuple[pa.Table, np.ndarray]:
        """The old rows of the rows ``here``; and per row of ``table`` which of them is its, or -1."""
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        positions = table["carry_position"].to_numpy(zero_copy_only=False)
        old, rows = [], []
        for number in np.unique(numbers[here]):
            of_file = here[numbers[here] == number]
            old.append(self._rows(int(number), positions[of_file].astype(np.int64), columns))
            rows.append(of_file)
        place = np.full(len(table), -1)
        place[np.concatenate(rows)] = np.arange(len(here))
        return pa.concat_tables(old).combine_chunks(), place

    def _rows(self, number: int, positions: np.ndarray, columns: list[str]) -> pa.Table:
        """Rows of one file, in the order asked for; only their row groups are read."""
        shard = self.files[number]
        with ShardErrors(self.root, shard), open_shard(self.root, shard) as file:
            check_columns(self.root, shard, file.schema_arrow, columns)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            starts = np.concatenate([[0], np.cumsum(sizes)])
            groups = np.unique(np.searchsorted(starts, positions, side="right") - 1)
            parts = file.parts(groups.tolist(), columns)
            table = pa.concat_tables(file.read_row_groups(part, columns=columns, use_threads=False) for part in parts)
        before = np.concatenate([[0], np.cumsum([sizes[group] for group in groups])])
        group = np.searchsorted(starts, positions, side="right") - 1
        at = positions - starts[group] + before[np.searchsorted(groups, group)]
        return table.take(pa.array(at))


def _either(computed: pa.ChunkedArray, carried: pa.ChunkedArray, which: np.ndarray) -> pa.Array:
    """``carried`` where ``which``, else ``computed``: one take over both."""
    both = pa.chunked_array([*computed.chunks, *carried.chunks], computed.type).combine_chunks()
    rows = np.arange(len(which))
    return both.take(pa.array(np.where(which, rows + len(which), rows)))


class KeepColumnsStage(ReuseColumnsStage):
    """Maps finished rows to finished rows: a row that is computed once more, since a feature of it had failed, keeps
    what it had of the features that fail now.

    A failure of a cell that is kept is none; one of the whole file stays, where other windows may lack it.

    Args:
        cuts_text: a feature cuts texts into windows of tokens. Then a window without times holds a part of a text.
    """

    def __init__(
        self, root: str, files: Sequence[File], features: tuple[BoundFeature, ...], cuts_text: bool = False
    ) -> None:
        super().__init__(root, files, features)
        self.cuts_text = cuts_text

    def __call__(self, table: pa.Table) -> pa.Table:
        numbers = table["carry_file"].to_numpy(zero_copy_only=False)
        again = ~np.isnan(numbers.astype(np.float64))
        lacking = {one.name: ~_any_valid(table, one) & again for one in self.features}
        here = np.flatnonzero(np.any([*lacking.values()], axis=0)) if lacking else np.zeros(0, np.int64)
        if not len(here):
            return table
        fields = [field for feature in self.features for field in feature.fields()]
        try:
            taken, place = self._taken(table, here, [*_TIMES, *(field.name for field in fields)])
        except ConfigError:
            if (again & ~_holds_media(table)).any():
                raise  # nothing of it was computed: the row would be lost
            return table  # the old row is lost, and what was computed counts
        index = pa.array(place, mask=place < 0)
        same_times = place >= 0
        for name in _TIMES:
            now, then = table[name], taken[name].take(index)
            equal = pc.or_(pc.equal(now, then).fill_null(False), pc.and_(pc.is_null(now), pc.is_null(then)))
            same_times &= equal.to_numpy(zero_copy_only=False) if isinstance(equal, pa.Array) else equal.to_numpy()
        # a row without times holds only what belongs to every window
        untimed = (place >= 0) & taken["start_s"].take(index).is_null().to_numpy()
        failures: list[list[dict[str, Any]]] = [one or [] for one in table["failures"].to_pylist()]
        cells = table["cells"].to_numpy(zero_copy_only=False).copy()
        for feature in self.features:
            kept = lacking[feature.name] & _any_valid(taken.take(index), feature)
            if feature.modality == "text" and self.cuts_text:
                kept &= same_times & _holds_the_same_text(table)
            elif feature.modality == "image":
                kept &= place >= 0
            else:
                kept &= same_times | untimed
            if not kept.any():
                continue
            for field in feature.fields():
                values = taken[field.name].take(index).cast(field.type)
                table = put(table, field.name, _either(table[field.name].cast(field.type), values, kept))
            for row in np.flatnonzero(kept).tolist():
                left = [
                    one for one in failures[row] if one["feature"] != feature.name or _is_of_others(table, row, one)
                ]
                cells[row] += 1 - (len(failures[row]) - len(left))
                failures[row] = left
        table = put(table, "cells", pa.array(cells, pa.int32()))
        return put(table, "failures", pa.array(failures, table.schema.field("failures").type))


def _is_of_others(table: pa.Table, row: int, failure: dict[str, Any]) -> bool:
    """Whether a failure is also that of other windows of the sample."""
    return bool(failure["stage"] == "probe" and table["windows"][row].as_py() > 1)


def _holds_media(table: pa.Table) -> np.ndarray:
    """Returns [n] bool: whether anything of a row's window can be read."""
    columns = [table[name] for name in ("inline_text", *(f"{modality}_uri" for modality in MODALITIES))]
    found: np.ndarray = np.any([column.is_valid().to_numpy() for column in columns], axis=0)
    return found


def _holds_the_same_text(table: pa.Table) -> np.ndarray:
    """Returns [n] bool: whether a row of a time, or of none, has the same part of its text as an earlier row of that
    time. Without times that is so if the text is cut again, or cannot be read, and not if it is whole now."""
    whole = pc.and_(pc.is_null(table["start_s"]), pc.is_null(table["text_from"]))
    readable = pc.or_(pc.is_valid(table["text_uri"]), pc.is_valid(table["inline_text"]))
    found: np.ndarray = ~pc.and_(whole, readable).to_numpy()
    return found


def _any_valid(table: pa.Table, feature: BoundFeature) -> np.ndarray:
    """Returns [n] bool: whether a row has the feature."""
    found = np.zeros(len(table), bool)
    for field in feature.fields():
        found |= table[field.name].is_valid().to_numpy()
    return found
