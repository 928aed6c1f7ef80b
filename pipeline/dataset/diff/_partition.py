"""One partition of ids: which samples are new, changed, unchanged, deleted or retried."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.diff.columns import (
    CARRY,
    CARRY_NOT,
    EMPTY,
    EXTRA,
    FAILURE,
    RETRY_SAMPLE,
    RETRY_WINDOW,
    ROW,
    TOTAL,
)
from pipeline.dataset.diff.result import Counts, Difference, DuplicateIdError, sample_hash

_FEW_FOLDERS = 32


def _lists(columns: list[pa.Array], offsets: np.ndarray, kind: pa.DataType) -> pa.Array:
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


class _Partition:
    """All samples whose ids fall into one partition, as arrays over codes: one code an id."""

    def __init__(
        self, listed: pa.Table | None, stored: pa.Table, forgotten: frozenset[str], refused_folders: Sequence[str]
    ) -> None:
        self.forgotten = 0
        if listed is not None and forgotten:
            barred = pa.array([sample_hash(one) in forgotten for one in listed["sample_id"].to_pylist()], pa.bool_())
            self.forgotten = pc.sum(barred).as_py() or 0
            listed = listed.filter(pc.invert(barred))
        self.listed = listed
        ids = [] if listed is None else [listed["sample_id"]]
        versions = [] if listed is None else [listed["source_version"]]
        codes, self.count = _codes([*ids, stored["sample_id"]])
        version_codes, _ = _codes([*versions, stored["source_version"]])
        rows = 0 if listed is None else len(listed)
        self.code, version = codes[rows:], version_codes[rows:]
        self.row = np.full(self.count, -1, np.int64)
        self.row[codes[:rows]] = np.arange(rows)
        self.is_listed = self.row >= 0
        if listed is not None and (double := np.flatnonzero(np.bincount(codes[:rows]) > 1)).size:
            raise DuplicateIdError(listed["sample_id"][int(np.flatnonzero(codes[:rows] == double[0])[0])].as_py())
        current = np.full(self.count, -1, np.int64)
        current[codes[:rows]] = version_codes[:rows]
        self.same_version = version == current[self.code]
        # what is stored of a sample whose file may not be read stays as it is, whatever its version
        self.refused = np.zeros(self.count, bool)
        if listed is not None and listed["forbidden"].null_count < rows:
            self.refused[codes[:rows]] = listed["forbidden"].fill_null(False).to_numpy()
        self.same = self.same_version | self.refused[self.code]
        self.protected = np.zeros(self.count, bool)
        self._protect(stored["sample_id"], refused_folders)
        self.window = stored["window"].to_numpy()
        self.what = stored["what"].to_numpy()
        self.run = stored["run"].to_numpy()
        self.adopted = self.run > 0
        self.file = stored["file"].to_numpy()
        self.position = stored["position"].to_numpy()
        self.retry = stored["retry"].to_numpy()
        self.attempts = stored["attempts"]
        self.feature = stored["feature"]

    def _protect(self, ids: pa.ChunkedArray, folders: Sequence[str]) -> None:
        """Marks stored samples in ``folders`` (with a slash at the end), which were not listed."""
        if len(folders) <= _FEW_FOLDERS:
            for folder in folders:
                self.protected[self.code[pc.starts_with(ids, folder).to_numpy()]] = True
            return
        known = frozenset(folders)
        within = (any(one[: at + 1] in known for at, c in enumerate(one) if c == "/") for one in ids.to_pylist())
        self.protected[self.code[np.fromiter(within, bool, len(ids))]] = True

    def refuse(self, are_refused: Callable[[pa.Table], np.ndarray]) -> None:
        """Marks samples as refused if they have stored rows that would be replaced, and their files may not be read."""
        base = ~self.adopted & (self.what < TOTAL)
        due = self._any(base & (~self.same | (self.retry > 0))) & self._any(base & (self.what == ROW))
        codes = np.flatnonzero(due & self.is_listed & ~self.refused)
        if self.listed is None or not len(codes):
            return
        found = are_refused(self.listed.take(pa.array(self.row[codes])))
        self.refused[codes[found]] = True
        self.same = self.same_version | self.refused[self.code]

    def compare(self, done: Difference, emit: Callable[[pa.Table], None], keep_deleted: bool) -> None:
        base = ~self.adopted & (self.what < TOTAL)
        known = self._any(base)
        stale = self._any(base & ~self.same)
        new, changed = self.is_listed & ~known, self.is_listed & known & stale
        deleted, unchanged = known & ~self.is_listed & ~self.protected, self.is_listed & known & ~stale
        again = base & unchanged[self.code]
        again &= ~self.refused[self.code]  # it would lose the rows that it has, and fail as before
        whole = self._any(again & (self.retry == RETRY_SAMPLE))
        some = self._any(again & (self.retry == RETRY_WINDOW)) & ~whole
        retried = whole | some
        redone = new | changed | whole
        failed = again & (self.retry == RETRY_WINDOW) & some[self.code]
        asked = _Pairs(self.code[failed], self.window[failed])
        in_asked = asked.hold(self.code, self.window)

        taken = self.adopted & (self.what < TOTAL) & self.same & (redone[self.code] | (some[self.code] & in_asked))
        taken &= self._of_the_latest_run(taken)
        arrived = _Pairs(self.code[taken], self.window[taken])
        lacking = taken & (self.what == FAILURE)
        real = taken & (self.what != EMPTY)
        have = arrived.count(self.count)
        need = np.zeros(self.count, np.int64)
        totals = self.adopted & (self.what == TOTAL) & self.same
        np.maximum.at(need, self.code[totals], self.window[totals])
        need[some] = asked.count(self.count)[some]
        complete = (redone | some) & (have > 0) & (have >= need) & (need > 0)

        dropped = base & (changed | whole | (deleted & (not keep_deleted)))[self.code]
        dropped |= base & some[self.code] & in_asked
        dropped |= self.adopted & (self.what < TOTAL) & ~taken
        self._drop(dropped, done.drops)
        fresh = (new | changed)[self.code]
        counts = Counts(
            new=int(new.sum()),
            changed=int(changed.sum()),
            unchanged=int((unchanged & ~retried).sum()),
            deleted=int(deleted.sum()),
            retried=int(retried.sum()),
            forgotten=self.forgotten,
            forbidden=int((self.is_listed & self.refused).sum()),
            adopted=int(complete.sum()),
            rows_adopted=len(_Pairs(self.code[real], self.window[real]).keys),
            rows_adopted_with_failures=len(_Pairs(self.code[lacking], self.window[lacking]).keys),
            new_rows_adopted=len(_Pairs(self.code[real & fresh], self.window[real & fresh]).keys),
            new_rows_adopted_with_failures=len(_Pairs(self.code[lacking & fresh], self.window[lacking & fresh]).keys),
        )
        done.counts.add(counts)
        todo = (redone | some) & ~complete
        if self.listed is not None and todo.any():
            keep = base & some[self.code] & ~in_asked
            settled = taken | keep
            own = again & (self.what == ROW) & (whole[self.code] | (some[self.code] & in_asked))
            emit(self._work(todo, known, _Pairs(self.code[settled], self.window[settled]), again, own))
            done.work += int(todo.sum())

    def _work(
        self, todo: np.ndarray, known: np.ndarray, settled: _Pairs, again: np.ndarray, own: np.ndarray
    ) -> pa.Table:
        assert self.listed is not None
        codes = np.flatnonzero(todo)
        codes = codes[np.argsort(self.row[codes], kind="stable")]
        table = self.listed.take(pa.array(self.row[codes]))
        extra = [pa.array(known[codes]), settled.lists(codes), self._tried(codes, again), self._carried(codes, own)]
        for one, column in zip(EXTRA, extra, strict=True):
            table = table.append_column(one, column)
        return table

    def _carried(self, codes: np.ndarray, own: np.ndarray) -> pa.Array:
        """Rows of another version of the same media, per code; and the dataset's own that are computed once more."""
        rows = (self.what == CARRY) & self.same_version & ~(self._any(self.what == CARRY_NOT) | self.refused)[self.code]
        rows |= own
        at, offsets = self._by_code(rows, codes)
        columns = [self.window[at].astype(np.int32), self.file[at].astype(np.int32), self.position[at]]
        return _lists([pa.array(one) for one in columns], offsets, EXTRA.field("carry").type)

    def _tried(self, codes: np.ndarray, again: np.ndarray) -> pa.Array:
        """How often each feature of each window has failed before, per code: also what is not tried again for its own
        sake, but beside another."""
        at, offsets = self._by_code(again & (self.what == FAILURE), codes)
        taken = [column.take(pa.array(at)).combine_chunks() for column in (self.feature, self.attempts)]
        return _lists([pa.array(self.window[at].astype(np.int32)), *taken], offsets, EXTRA.field("attempts").type)

    def _by_code(self, mask: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stored rows of a mask, one of ``codes`` after the other, and where each one's begin."""
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(self.code[rows], kind="stable")]
        first, last = (np.searchsorted(self.code[rows], codes, side) for side in ("left", "right"))
        lengths = last - first
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return rows[np.repeat(first - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets

    def _of_the_latest_run(self, rows: np.ndarray) -> np.ndarray:
        """Of the stored rows of a mask, those that no later run has a row for."""
        at = np.flatnonzero(rows)
        pairs = _Pairs(self.code[at], self.window[at])
        which = np.searchsorted(pairs.keys, _Pairs.key(self.code[at], self.window[at]))
        latest = np.zeros(len(pairs.keys), np.int16)
        np.maximum.at(latest, which, self.run[at])
        found = np.zeros(len(rows), bool)
        found[at] = self.run[at] == latest[which]
        return found

    def _any(self, rows: np.ndarray) -> np.ndarray:
        """Per code, whether any of the stored rows of a mask is its."""
        found = np.zeros(self.count, bool)
        found[self.code[rows]] = True
        return found

    def _drop(self, rows: np.ndarray, drops: dict[int, list[np.ndarray]]) -> None:
        files, positions = self.file[rows], self.position[rows]
        order = np.argsort(files, kind="stable")
        files, positions = files[order], positions[order]
        cuts = np.flatnonzero(np.diff(files)) + 1
        for some, where in zip(np.split(files, cuts), np.split(positions, cuts), strict=True):
            if len(some):
                drops[int(some[0])].append(where)


class _Pairs:
    """A set of (code, window)."""

    def __init__(self, codes: np.ndarray, windows: np.ndarray) -> None:
        self.keys = np.unique(self.key(codes, windows))

    @staticmethod
    def key(codes: np.ndarray, windows: np.ndarray) -> np.ndarray:
        return codes.astype(np.int64) << 32 | windows.astype(np.int64)

    def hold(self, codes: np.ndarray, windows: np.ndarray) -> np.ndarray:
        return np.isin(self.key(codes, windows), self.keys)

    def count(self, codes: int) -> np.ndarray:
        """Windows of each code."""
        return np.bincount(self.keys >> 32, minlength=codes)

    def lists(self, codes: np.ndarray) -> pa.Array:
        """The windows of each of ``codes``, as ``list<int32>``."""
        first = np.searchsorted(self.keys, codes.astype(np.int64) << 32)
        last = np.searchsorted(self.keys, (codes.astype(np.int64) + 1) << 32)
        lengths = last - first
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(first - offsets[:-1], lengths) + np.arange(offsets[-1])
        windows = (self.keys[at] & 0xFFFFFFFF).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(windows))


def _codes(columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, int]:
    """One number a distinct string, over all columns, in order of appearance; and how many there are."""
    chunks = [chunk for column in columns for chunk in column.cast(pa.large_string()).chunks]
    found = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
    encoded = (found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)
