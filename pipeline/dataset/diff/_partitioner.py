"""Splits two streams of tables into partitions, so that equal ids are in one partition. Spills to disk if large."""

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
_IN_MEMORY_BYTES = 192 << 20
"""Tables of more bytes than this are spilled."""
_HASHED_BYTES = 4096
"""Only so many first bytes of an id are hashed."""
_CHUNK_BYTES = 4 << 20
"""Bytes of ids that are hashed in one step, which needs 24 times as much memory."""
_SEED = secrets.randbits(128)


class SpillingPartitioner:
    """Takes tables with a ``sample_id`` on two sides, and returns both sides in partitions of equal ids.

    Above `_IN_MEMORY_BYTES` it spills into files without a name, which the system deletes when this process ends.
    """

    def __init__(self) -> None:
        self.files: list[IO[bytes]] = []
        """One spill file for each side; empty until something is spilled."""
        self.pieces: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        """(side, partition) -> (offset, bytes) of its pieces in the side's file."""
        self.tables: tuple[list[pa.Table], list[pa.Table]] = ([], [])
        """The tables of each side that are in memory."""
        self.bytes = 0

    def add(self, side: int, table: pa.Table) -> None:
        """Adds a table to side 0 or 1. Raises ``StorageError`` if it cannot be spilled."""
        self.tables[side].append(table)
        self.bytes += table.nbytes
        if self.bytes > _IN_MEMORY_BYTES:
            self._spill()

    def partitions(self) -> Iterator[tuple[pa.Table | None, pa.Table | None]]:
        """Yields the two sides of each partition; None for a side without rows. Call it once, after the last `add`."""
        if not self.files:
            listed, stored = (pa.concat_tables(side) if side else None for side in self.tables)
            yield listed, stored
            return
        self._spill()
        for number in range(_PARTITIONS):
            yield self._read(0, number), self._read(1, number)
        for file in self.files:
            file.close()

    def _spill(self) -> None:
        folder = tempfile.gettempdir()
        try:
            self.files = self.files or [tempfile.TemporaryFile() for _ in self.tables]  # noqa: SIM115  # `partitions` closes them
            self._write_out()
        except OSError as error:
            raise StorageError(
                f"cannot compare the listing with the dataset in {folder!r} ({describe(error)}): is it full? "
                "TMPDIR names another place"
            ) from error

    def _write_out(self) -> None:
        """Appends the tables in memory to the spill files, sorted by partition."""
        for side, tables in enumerate(self.tables):
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
        """Reads one side of a partition from its spill file; None if it has no rows."""
        pieces: list[pa.Table] = []
        for start, size in self.pieces.pop((side, number), []):
            self.files[side].seek(start)
            pieces.append(ipc.open_stream(self.files[side].read(size)).read_all())
        return pa.concat_tables(pieces) if pieces else None


def partition_of(ids: pa.ChunkedArray) -> np.ndarray:
    """Returns the partition of each id, [n] int64 below `_PARTITIONS`: a polynomial hash of the id's first bytes.

    The weights are random in each process, so that no listing can be built whose ids are all in one partition.
    """
    parts = [np.zeros(0, np.int64)]
    for chunk in ids.cast(pa.large_binary()).chunks:
        if not len(chunk):
            continue
        offsets = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        data = chunk.buffers()[2]
        octets = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        ends = np.cumsum(np.minimum(np.diff(offsets), _HASHED_BYTES))
        cuts = np.flatnonzero(np.diff(ends // _CHUNK_BYTES)) + 1
        for first, last in itertools.pairwise([0, *cuts.tolist(), len(chunk)]):
            parts.append(_hash(*_first_bytes(octets, offsets[first : last + 1])))
    return np.concatenate(parts)


def _first_bytes(octets: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `_HASHED_BYTES` of each id, and their offsets."""
    lengths = np.diff(offsets)
    if lengths.max(initial=0) <= _HASHED_BYTES:
        return octets[offsets[0] : offsets[-1]], offsets - offsets[0]
    pieces = [octets[start : start + min(size, _HASHED_BYTES)] for start, size in zip(offsets, lengths, strict=False)]
    return np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(one) for one in pieces])])


def _hash(octets: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns the partition of each id, [n] int64, given the bytes of all ids and their [n + 1] offsets."""
    lengths = np.diff(offsets)
    index_in_id = np.arange(len(octets)) - np.repeat(offsets[:-1], lengths)
    weights = _weights(int(lengths.max(initial=0)))
    sums = np.zeros(len(octets) + 1, np.uint64)
    np.cumsum((octets.astype(np.uint64) + np.uint64(1)) * weights[index_in_id], out=sums[1:])
    total = sums[offsets[1:]] - sums[offsets[:-1]]
    total ^= total >> np.uint64(29)
    mixed: np.ndarray = (total * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return mixed.astype(np.int64) % _PARTITIONS


def _weights(count: int) -> np.ndarray:
    """Returns ``count`` odd uint64 weights: always the same ones within a process."""
    weights: np.ndarray = np.random.default_rng(_SEED).integers(1, 1 << 63, max(count, 1), np.uint64) | np.uint64(1)
    return weights
