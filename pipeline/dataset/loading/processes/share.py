"""The batches of an epoch that one process reads: its rank's, of which each worker process reads every n-th."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.decoded import GroupReader
from pipeline.dataset.loading.order.deal import Range
from pipeline.dataset.loading.order.epoch import Rows
from pipeline.dataset.loading.place import PlacedCollate, collated
from pipeline.dataset.loading.reading import BatchReading, ReadCounts
from pipeline.dataset.loading.sequence import Sequence

_THREADS, _REMOTE_THREADS = 2, 8
"""Row groups that a process decodes at the same time, of a local dataset and of one on an object store."""


@dataclass(frozen=True)
class Share:
    """Which batches of an epoch a process reads.

    Args:
        epoch: counts from 0.
        start: batches of it that all ranks together were given before.
        rank: of the process.
        world_size: number of ranks.
        worker: number of the worker process in its rank.
        workers: worker processes of each rank; 1 if the trainer's process reads.
        done: batches of this process that are left out, since it has read them before.
    """

    epoch: int
    start: int
    rank: int
    world_size: int
    worker: int = 0
    workers: int = 1
    done: int = 0


def read_share(
    sequence: Sequence, collate: Callable[[pa.RecordBatch], Any] | PlacedCollate, share: Share, threads: int | None
) -> tuple[ReadCounts, Iterator[Any]]:
    """Returns the batches of a process, and what it has read, which changes while they are read.

    Args:
        sequence: the rows.
        collate: makes a batch.
        share: the batches.
        threads: row groups that are decoded at the same time; None: it depends on where the dataset is.

    Raises:
        ConfigError: the datasets of a mixture have other columns.
    """
    rows, deal = sequence.epoch(share.epoch), sequence.deal(share.start, share.world_size)
    planned: deque[list[Range]] = deque()

    def plans() -> Iterator[list[Rows]]:
        for number in itertools.islice(range(share.worker, deal.rounds, share.workers), share.done, None):
            planned.append(deal.batch(share.rank, number))
            yield [one for first, end in planned[-1] for one in rows.read(first, end)]

    readers = _readers(sequence)
    reading = BatchReading(
        readers,
        plans(),
        rows.permuted,
        sequence.max_open_bytes,
        threads or (_THREADS if all(storage.is_local(one.root) for one in readers) else _REMOTE_THREADS),
        sequence.sources[0].skip_unreadable,
    )
    return reading.counts, collated(reading, collate, share.epoch, planned)


def _readers(sequence: Sequence) -> list[GroupReader]:
    found = [source.reader() for source in sequence.sources]
    if any(not one.schema.equals(found[0].schema) for one in found):
        raise ConfigError("datasets", "their columns have different types", "columns of equal types")
    return found
