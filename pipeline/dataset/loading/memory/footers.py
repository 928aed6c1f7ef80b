"""Footers: the footers of the shards of a snapshot, up to a limit of bytes."""

from __future__ import annotations

import pyarrow.parquet as pq

_MAX_BYTES = 8 << 20
"""Bytes of footers, as they are in the files, that are kept; in memory they take up to eight times as many."""


class Footers:
    """Footers that were read, so that a file that is opened again needs no request and no parsing for its own.

    Threads may share it, and forked processes inherit it: there is no lock that one of them could leave locked. A
    pickled one is empty.
    """

    def __init__(self) -> None:
        self._found: dict[int, pq.FileMetaData] = {}

    def __reduce__(self) -> tuple[type[Footers], tuple[()]]:
        return Footers, ()

    def get(self, shard: int) -> pq.FileMetaData | None:
        """Returns the footer of a shard, by its number in the snapshot; None: it is not kept."""
        return self._found.get(shard)

    def keep(self, shard: int, footer: pq.FileMetaData) -> None:
        """Keeps a footer, and forgets the oldest ones over the limit."""
        self._found[shard] = footer
        kept = list(self._found.items())
        excess = sum(one.serialized_size for _, one in kept) - _MAX_BYTES
        for number, one in kept[:-1]:
            if excess <= 0:
                break
            self._found.pop(number, None)
            excess -= one.serialized_size
