"""Counts the row groups that reading decodes, with row groups of one byte a row that are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.loading.decoded import DecodedGroup
from pipeline.dataset.loading.order.deal import Deal
from pipeline.dataset.loading.order.epoch import Epoch, Order, Rows
from pipeline.dataset.loading.reading import BatchReading


class _Reader:
    """Row groups in place of those of files. ``index`` is itself: it has the sizes that reading asks for."""

    schema = pa.schema([("value", pa.int8())])

    def __init__(self, sizes: np.ndarray) -> None:
        self.index, self.sizes = self, sizes
        self.bytes = self.decoding_bytes = sizes

    def read(self, number: int) -> DecodedGroup:
        return DecodedGroup.of(pa.table({"value": pa.array(np.zeros(self.sizes[number], np.int8))}), None)

    def close(self) -> None:
        pass


def decoded_groups(sizes: np.ndarray, streams: int, chunk_rows: int, batch_size: int, processes: int) -> float:
    """Returns how often a row group is decoded in an epoch, on average.

    Args:
        sizes: rows of each group.
        streams: as for `Dataset.to_torch`, as are ``chunk_rows`` and ``batch_size``.
        processes: ranks times workers.
    """
    epoch = Epoch(Order(sizes, 0, 0, True, streams), chunk_rows)
    deal = Deal(epoch.rows, batch_size, 0, processes, "short")

    def plans(process: int) -> Iterator[list[Rows]]:
        for number in range(deal.rounds):
            yield [rows for start, end in deal.batch(process, number) for rows in epoch.read(start, end)]

    found = 0
    for process in range(processes):
        readers: list[Any] = [_Reader(sizes)]
        reading = BatchReading(readers, plans(process), epoch.permuted, 1 << 40, 2, False)
        for _ in reading:
            pass
        found += reading.counts.decoded_groups
    return found / len(sizes)
