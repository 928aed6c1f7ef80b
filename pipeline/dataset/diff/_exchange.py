"""Two streams of tables, handed out in partitions of equal ids; spilled to disk where they are many."""

from __future__ import annotations

import itertools
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from pipeline.core.errors import StorageError, describe

_PARTITIONS = 256
_IN_MEMORY = 192 << 20
_HASHED_BYTES = 4096
"""Of an id."""
_AT_ONCE_BYTES = 4 << 20
"""So much of ids is hashed together, which takes 24 times as much memory."""
_SEED = secrets.randbits(128)


class _SpillingPartitioner:
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
