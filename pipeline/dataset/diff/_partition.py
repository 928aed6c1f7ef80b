"""One partition of ids, as arrays: what is listed of its samples, and what is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit.data_files import FileKind
from pipeline.dataset.diff._arrays import WindowSet, concatenated_ranges, encode_strings
from pipeline.dataset.diff.columns import WINDOW_COUNT
from pipeline.dataset.diff.result import DuplicateIdError, sample_hash

_FEW_FOLDERS = 32


class Partition:
    """All samples whose ids are in one partition.

    A sample has an integer code. Arrays are of one of two shapes: [samples], indexed by code; and [stored], one value
    for each row of the dataset's side, whose sample is ``code``.

    Args:
        listed: the samples of the listing; None: none.
        stored: the dataset's side, of ``STATE``.
        forgotten: sha256 (hex) of ids that are treated as not listed.
        refused_folders: prefixes of ids that could not be listed.

    Raises:
        DuplicateIdError: two listed samples have the same id.
    """

    def __init__(
        self, listed: pa.Table | None, stored: pa.Table, forgotten: frozenset[str], refused_folders: Sequence[str]
    ) -> None:
        self.num_forgotten = 0
        if listed is not None and forgotten:
            is_forgotten = pa.array(
                [sample_hash(one) in forgotten for one in listed["sample_id"].to_pylist()], pa.bool_()
            )
            self.num_forgotten = pc.sum(is_forgotten).as_py() or 0
            listed = listed.filter(pc.invert(is_forgotten))
        self.listed = listed
        self._encode(listed, stored, refused_folders)
        self.window = stored["window"].to_numpy()
        self.row_kind = stored["row_kind"].to_numpy()
        self.run = stored["run"].to_numpy()
        self.is_interrupted = self.run > 0
        """[stored] The row was written by an interrupted run."""
        self.is_committed = ~self.is_interrupted & (self.row_kind < WINDOW_COUNT)
        """[stored] The row, failure or empty window is in the dataset itself."""
        self.file = stored["file"].to_numpy()
        self.position = stored["position"].to_numpy()
        self.retry = stored["retry"].to_numpy()
        self.attempts = stored["attempts"]
        self.feature = stored["feature"]

    def _encode(self, listed: pa.Table | None, stored: pa.Table, refused_folders: Sequence[str]) -> None:
        """Gives each id a code, and compares the source versions of both sides."""
        ids = [] if listed is None else [listed["sample_id"]]
        versions = [] if listed is None else [listed["source_version"]]
        codes, self.count = encode_strings([*ids, stored["sample_id"]])
        version_codes, _ = encode_strings([*versions, stored["source_version"]])
        rows = 0 if listed is None else len(listed)
        listed_codes, self.code = codes[:rows], codes[rows:]
        self.listed_row = np.full(self.count, -1, np.int64)
        """[samples] Row of the sample in ``listed``; -1: not listed."""
        self.listed_row[listed_codes] = np.arange(rows)
        self.is_listed = self.listed_row >= 0
        if listed is not None and (double := np.flatnonzero(np.bincount(listed_codes) > 1)).size:
            raise DuplicateIdError(listed["sample_id"][int(np.flatnonzero(listed_codes == double[0])[0])].as_py())
        listed_version = np.full(self.count, -1, np.int64)
        listed_version[listed_codes] = version_codes[:rows]
        self.has_same_version = version_codes[rows:] == listed_version[self.code]
        """[stored] The row has the source version of the listing."""
        self.is_refused = np.zeros(self.count, bool)
        """[samples] The source refuses the sample's file. Stored rows are kept, whatever their source version."""
        if listed is not None and listed["forbidden"].null_count < rows:
            self.is_refused[listed_codes] = listed["forbidden"].fill_null(False).to_numpy()
        self._update_current()
        self.is_protected = np.zeros(self.count, bool)
        """[samples] The sample is in a folder that could not be listed, so it does not count as deleted."""
        self._protect(stored["sample_id"], refused_folders)

    def _update_current(self) -> None:
        self.is_current = self.has_same_version | self.is_refused[self.code]
        """[stored] The row does not have to be computed again because of its source version."""

    def _protect(self, ids: pa.ChunkedArray, folders: Sequence[str]) -> None:
        """Marks the stored samples in ``folders``, each of which ends with a slash."""
        if len(folders) <= _FEW_FOLDERS:
            for folder in folders:
                self.is_protected[self.code[pc.starts_with(ids, folder).to_numpy()]] = True
            return
        known = frozenset(folders)
        within = (any(one[: at + 1] in known for at, c in enumerate(one) if c == "/") for one in ids.to_pylist())
        self.is_protected[self.code[np.fromiter(within, bool, len(ids))]] = True

    def refuse(self, are_refused: Callable[[pa.Table], np.ndarray]) -> None:
        """Calls ``are_refused`` for the samples whose stored rows would be replaced, and marks those it refuses."""
        committed = self.is_committed
        replaced = self.samples_with(committed & (~self.is_current | (self.retry > 0)))
        replaced &= self.samples_with(committed & (self.row_kind == FileKind.ROW))
        codes = np.flatnonzero(replaced & self.is_listed & ~self.is_refused)
        if self.listed is None or not len(codes):
            return
        found = are_refused(self.listed.take(pa.array(self.listed_row[codes])))
        self.is_refused[codes[found]] = True
        self._update_current()

    def samples_with(self, rows: np.ndarray) -> np.ndarray:
        """Returns [samples] bool: which samples have any of the stored rows in the mask ``rows``."""
        found = np.zeros(self.count, bool)
        found[self.code[rows]] = True
        return found

    def windows_of(self, rows: np.ndarray) -> WindowSet:
        """Returns the windows of the stored rows in the mask ``rows``."""
        return WindowSet(self.code[rows], self.window[rows])

    def by_code(self, rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Groups the stored rows in the mask ``rows`` by sample.

        Returns:
            indices of the stored rows of each of ``codes``, one sample after the other; and the [len(codes) + 1]
            offsets of each sample in them.
        """
        indices = np.flatnonzero(rows)
        indices = indices[np.argsort(self.code[indices], kind="stable")]
        first, last = (np.searchsorted(self.code[indices], codes, side) for side in ("left", "right"))
        ranges, offsets = concatenated_ranges(first, last)
        return indices[ranges], offsets

    def of_latest_run(self, rows: np.ndarray) -> np.ndarray:
        """Returns the part of the mask ``rows`` for whose windows no later run has a row in the mask."""
        indices = np.flatnonzero(rows)
        windows = WindowSet(self.code[indices], self.window[indices])
        which = np.searchsorted(windows.keys, WindowSet.key(self.code[indices], self.window[indices]))
        latest = np.zeros(len(windows), np.int16)
        np.maximum.at(latest, which, self.run[indices])
        found = np.zeros(len(rows), bool)
        found[indices] = self.run[indices] == latest[which]
        return found

    def add_drops(self, rows: np.ndarray, drops: dict[int, list[np.ndarray]]) -> None:
        """Adds the stored rows in the mask ``rows`` to ``drops``: number of a file -> arrays of positions."""
        files, positions = self.file[rows], self.position[rows]
        order = np.argsort(files, kind="stable")
        files, positions = files[order], positions[order]
        cuts = np.flatnonzero(np.diff(files)) + 1
        for same_file, positions_in_file in zip(np.split(files, cuts), np.split(positions, cuts), strict=True):
            if len(same_file):
                drops[int(same_file[0])].append(positions_in_file)
