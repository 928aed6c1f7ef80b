"""A mixture has each dataset's share of the rows, each row of a dataset once in its epoch, and streams of its own."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from pipeline.dataset.loading.order.epoch import Rows
from pipeline.dataset.loading.order.mixture import PATTERN, MixedEpoch, MixedOrder, quotas

SIZES = [np.array([10] * 20), np.array([7, 3, 25]), np.array([4] * 5)]
WEIGHTS = [0.5, 0.3, 0.2]


def mixed(streams: int = 4, chunk: int = 3, shuffle: bool = True) -> MixedOrder:
    return MixedOrder(SIZES, WEIGHTS, 1, shuffle, streams, chunk)


def flat(order: MixedOrder, rows: list[Rows]) -> list[tuple[int, int, int, int]]:
    """Returns (dataset, stream, group, row) of each row."""
    return [(one.source, one.stream, one.group, int(row)) for one in rows for row in one.of(order.permuted(one))]


def test_quotas_are_the_nearest_to_the_weights() -> None:
    assert quotas([1, 1, 2]).tolist() == [1024, 1024, 2048]
    found = quotas([0.7, 0.2999, 0.0001])
    assert found.sum() == PATTERN
    assert np.abs(found - np.array([0.7, 0.2999, 0.0001]) * PATTERN).max() < 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_row_is_there_once_in_each_epoch_of_its_dataset(shuffle: bool) -> None:
    order = mixed(shuffle=shuffle)
    read: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for one in order.read(0, 20_000):
        read[one.source, one.epoch] += [(one.group, int(row)) for row in one.of(order.permuted(one))]
    for source, sizes in enumerate(SIZES):
        whole = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
        epochs = [read[source, epoch] for epoch in range(20) if len(read[source, epoch]) == len(whole)]
        assert len(epochs) >= min(20, int(20_000 * WEIGHTS[source] / len(whole))) - 2
        assert all(sorted(one) == whole for one in epochs)
        assert len({tuple(one) for one in epochs}) > 1
    assert {len({*rows}) - len(rows) for rows in read.values()} == {0}


def test_shares_are_exact_over_a_pattern_and_near_before() -> None:
    order = mixed()
    whole = PATTERN * 4 * 3
    counts = Counter(one[0] for one in flat(order, list(order.read(0, whole))))
    assert [counts[source] for source in range(3)] == [int(one) * 12 for one in quotas(WEIGHTS)]
    early = Counter(one[0] for one in flat(order, list(order.read(0, 3000))))
    assert all(abs(early[source] / 3000 - weight) < 0.01 for source, weight in enumerate(WEIGHTS))


def test_it_is_one_sequence_however_it_is_cut() -> None:
    order = mixed()
    whole = flat(order, list(order.read(0, 5000)))
    for start, end in ((0, 1), (1, 4), (2999, 4201), (4999, 5000)):
        assert flat(mixed(), list(mixed().read(start, end))) == whole[start:end]
    assert [flat(order, list(MixedEpoch(order, 2, 500).read(a, a + 50))) for a in (0, 450)] == [
        whole[1000:1050],
        whole[1450:1500],
    ]


@pytest.mark.parametrize("end", [0, 1, 2, 3, 1000, 4999, 70_000])
def test_drawn_counts_the_rows_of_each(end: int) -> None:
    order = mixed()
    counts: Counter[int] = Counter()
    for one in order.read(0, end):
        counts[one.source] += one.size
    assert order.drawn(end) == [counts[source] for source in range(3)]


def test_chunk_j_is_of_stream_j() -> None:
    """So a process reads the same streams as with one dataset."""
    assert [one[1] for one in flat(mixed(), list(mixed().read(0, 24)))[::3]] == [0, 1, 2, 3] * 2
