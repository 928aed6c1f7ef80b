"""The corpus's listing against the dataset: which samples are new, changed, unchanged, deleted or to be tried again.

Both sides are tables of ids. They are compared in partitions of ids, spilled to this machine's disk where they are
many, so memory does not grow with the corpus; and as arrays, without a Python loop over samples.

A run that was killed left whole tasks behind. What they wrote is on the dataset's side too, as a ``run``'s: rows of
a sample that is still to be done, of the same version, are kept, and only its other windows are computed. Two killed
runs may have done the same window, if a worker of the first outlived its driver; then the later run's counts.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from pipeline.core.errors import StorageError, describe

STATE = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("source_version", pa.string()),
        pa.field("window", pa.int32()),
        pa.field("what", pa.int8()),
        pa.field("run", pa.int16()),
        pa.field("file", pa.int32()),
        pa.field("position", pa.int64()),
        pa.field("retry", pa.int8()),
        pa.field("attempts", pa.int32()),
        pa.field("feature", pa.string()),
    ]
)
"""The dataset's side. One row for each stored row, failure and empty window, and where it stands (file, position).
``run``: 0 of the dataset itself, from 1 on a killed run's."""

ROW, FAILURE, EMPTY, TOTAL, CARRY, CARRY_NOT = range(6)
"""``what``. TOTAL: ``window`` is the number of windows that the sample was cut into. CARRY: a row of another version,
of which columns may be taken; CARRY_NOT: that version has a failure of this sample, so that it is computed anew."""
RETRY_WINDOW, RETRY_SAMPLE = 1, 2
"""``retry`` of a failure: of its window, or, if it was of the whole file, of the sample."""

EXTRA = pa.schema(
    [
        pa.field("replaces", pa.bool_()),
        pa.field("windows_done", pa.list_(pa.int32())),
        pa.field(
            "attempts",
            pa.list_(pa.struct([("window", pa.int32()), ("feature", pa.string()), ("attempts", pa.int32())])),
        ),
        pa.field(
            "carry",
            pa.list_(pa.struct([("window", pa.int32()), ("file", pa.int32()), ("position", pa.int64())])),
        ),
    ]
)
"""What a row of work carries behind the listing: whether the dataset holds rows of this sample already, the windows
that are not to be computed, how often what is tried again was tried, and where rows of another version are, or this
version's own of windows that are tried again."""

_PARTITIONS = 256
_IN_MEMORY = 192 << 20
_HASHED_BYTES = 4096
"""Of an id."""
_AT_ONCE_BYTES = 4 << 20
"""So much of ids is hashed together, which takes 24 times as much memory."""
_FEW_FOLDERS = 32
_SEED = secrets.randbits(128)


@dataclass
class Counts:
    """Samples per class."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    retried: int = 0
    """Unchanged, with a failure that is tried again."""
    forgotten: int = 0
    forbidden: int = 0
    """Listed, and a file of theirs lies outside of what the source allows: of these, what is stored stays."""
    adopted: int = 0
    """New, changed or retried, and done by a run that was killed: nothing left to compute."""
    rows_adopted: int = 0
    rows_adopted_with_failures: int = 0
    new_rows_adopted: int = 0
    """Of these, rows of samples that are new or changed."""
    new_rows_adopted_with_failures: int = 0

    def add(self, other: Counts) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Difference:
    """What is to be done, but for the work itself, which is handed on as it is found."""

    counts: Counts = field(default_factory=Counts)
    work: int = 0
    """Samples to compute."""
    drops: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """File -> positions of rows that go."""


def compare(
    listing: Iterable[pa.Table],
    state: Iterable[pa.Table],
    *,
    emit: Callable[[pa.Table], None],
    keep_deleted: bool = False,
    forgotten: Iterable[str] = (),
    refused_folders: Sequence[str] = (),
    are_refused: Callable[[pa.Table], np.ndarray] | None = None,
) -> Difference:
    """Compare the listing with what the dataset holds.

    Args:
        listing: tables of ``LISTING`` + passthrough.
        state: tables of ``STATE``.
        emit: takes tables of work: listing + ``EXTRA``. In the listing's order where all fits into memory.
        keep_deleted: rows of samples that are listed no more stay.
        forgotten: sha256 (hex) of ids that are treated as not listed.
        refused_folders: ids that begin so were not listed, and yet are not deleted. Read once ``listing`` has ended.
        are_refused: looks at the files of samples ([n] bool). It is asked for those alone whose stored rows would be
            replaced: of a refused one they stay.

    Raises:
        Twice: two samples of one id.
    """
    barred = frozenset(forgotten)
    done = Difference()
    exchange = _Exchange()
    for table in listing:
        exchange.add(0, table)
    for table in state:
        exchange.add(1, table)
    for listed, stored in exchange.partitions():
        if listed is None and stored is None:
            continue
        partition = _Partition(listed, stored if stored is not None else STATE.empty_table(), barred, refused_folders)
        if are_refused is not None:
            partition.refuse(are_refused)
        partition.compare(done, emit, keep_deleted)
    return done


class Twice(Exception):
    """Two samples of the id that is its only argument."""


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
            raise Twice(listed["sample_id"][int(np.flatnonzero(codes[:rows] == double[0])[0])].as_py())
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


def sample_hash(sample_id: str) -> str:
    """What stands for a forgotten sample's id: sha256 (hex)."""
    return hashlib.sha256(sample_id.encode()).hexdigest()


# -- partitions -----------------------------------------------------------------------------------


class _Exchange:
    """Two sides of tables with a ``sample_id``; equal ids come out together.

    Beyond a bound of memory it spills into files without a name, which go with this process, however that ends.
    """

    def __init__(self) -> None:
        self.files: list[IO[bytes]] = []
        self.pieces: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        self.held: tuple[list[pa.Table], list[pa.Table]] = ([], [])
        self.bytes = 0

    def add(self, side: int, table: pa.Table) -> None:
        self.held[side].append(table)
        self.bytes += table.nbytes
        if self.bytes > _IN_MEMORY:
            self._spill()

    def partitions(self) -> Iterator[tuple[pa.Table | None, pa.Table | None]]:
        """The two sides of each partition; None for a side that has nothing there."""
        if not self.files:
            listed, stored = (pa.concat_tables(side) if side else None for side in self.held)
            yield listed, stored
            return
        self._spill()
        for number in range(_PARTITIONS):
            yield self._read(0, number), self._read(1, number)
        for file in self.files:
            file.close()

    def _spill(self) -> None:
        place = tempfile.gettempdir()
        try:
            self.files = self.files or [tempfile.TemporaryFile() for _ in self.held]  # noqa: SIM115  # `partitions` closes them
            self._write_out()
        except OSError as error:
            raise StorageError(
                f"cannot compare the listing with the dataset in {place!r} ({describe(error)}): is it full? "
                "TMPDIR names another place"
            ) from error

    def _write_out(self) -> None:
        for side, tables in enumerate(self.held):
            if not tables:
                continue
            table = pa.concat_tables(tables)
            tables.clear()
            part = partition_of(table["sample_id"])
            order = np.argsort(part, kind="stable")
            table = table.take(pa.array(order))
            ends = np.searchsorted(part[order], np.arange(_PARTITIONS + 1))
            for number in range(_PARTITIONS):
                piece = table.slice(ends[number], ends[number + 1] - ends[number])
                if len(piece):
                    start = self.files[side].tell()
                    with ipc.new_stream(self.files[side], piece.schema) as stream:
                        stream.write_table(piece)
                    self.pieces[side, number].append((start, self.files[side].tell() - start))
            self.files[side].flush()
        self.bytes = 0

    def _read(self, side: int, number: int) -> pa.Table | None:
        pieces: list[pa.Table] = []
        for start, size in self.pieces.pop((side, number), []):
            self.files[side].seek(start)
            pieces.append(ipc.open_stream(self.files[side].read(size)).read_all())
        return pa.concat_tables(pieces) if pieces else None


def partition_of(ids: pa.ChunkedArray) -> np.ndarray:
    """A partition for each id, [n] int64 below the number of partitions: a polynomial hash over its first bytes.

    The weights are random in each process, so that no listing can be made whose ids all fall into one partition.
    """
    parts = [np.zeros(0, np.int64)]
    for chunk in ids.cast(pa.large_binary()).chunks:
        if not len(chunk):
            continue
        offsets = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        data = chunk.buffers()[2]
        octets = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        ends = np.cumsum(np.minimum(np.diff(offsets), _HASHED_BYTES))
        cuts = np.flatnonzero(np.diff(ends // _AT_ONCE_BYTES)) + 1
        for first, last in itertools.pairwise([0, *cuts.tolist(), len(chunk)]):
            parts.append(_hash(*_beginnings(octets, offsets[first : last + 1])))
    return np.concatenate(parts)


def _beginnings(octets: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first bytes of each id, and their offsets."""
    lengths = np.diff(offsets)
    if lengths.max(initial=0) <= _HASHED_BYTES:
        return octets[offsets[0] : offsets[-1]], offsets - offsets[0]
    pieces = [octets[start : start + min(size, _HASHED_BYTES)] for start, size in zip(offsets, lengths, strict=False)]
    return np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(one) for one in pieces])])


def _hash(octets: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    lengths = np.diff(offsets)
    within = np.arange(len(octets)) - np.repeat(offsets[:-1], lengths)
    weights = _weights(int(lengths.max(initial=0)))
    sums = np.zeros(len(octets) + 1, np.uint64)
    np.cumsum((octets.astype(np.uint64) + np.uint64(1)) * weights[within], out=sums[1:])
    total = sums[offsets[1:]] - sums[offsets[:-1]]
    total ^= total >> np.uint64(29)
    mixed: np.ndarray = (total * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return mixed.astype(np.int64) % _PARTITIONS


def _weights(count: int) -> np.ndarray:
    weights: np.ndarray = np.random.default_rng(_SEED).integers(1, 1 << 63, max(count, 1), np.uint64) | np.uint64(1)
    return weights
