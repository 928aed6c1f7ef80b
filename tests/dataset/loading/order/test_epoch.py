"""The order of an epoch: every row once, few groups open, neighbours from different groups."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.loading.batches import MAX_OPEN_BYTES
from pipeline.dataset.loading.order.epoch import Epoch, Order, Rows, default_chunk_rows, default_streams

SIZES = [
    np.array([10] * 12),
    np.array([1, 30, 7, 7, 2, 19, 40, 3]),
    np.array([5]),
    np.array([1, 1, 1]),
    np.array([], np.int64),
]


def flat(order: Order, rows: list[Rows]) -> list[tuple[int, int]]:
    """Returns (group, row) of each row."""
    return [(one.group, int(row)) for one in rows for row in one.of(order.permuted(one.group))]


def epoch(sizes: np.ndarray, streams: int, chunk: int, seed: int = 0, number: int = 0, shuffle: bool = True) -> Epoch:
    return Epoch(Order(sizes, seed, number, shuffle, streams), chunk)


@pytest.mark.parametrize("sizes", SIZES, ids=len)
@pytest.mark.parametrize(("streams", "chunk"), [(1, 1), (2, 3), (5, 4), (7, 1), (64, 32)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_row_once_however_it_is_cut(sizes: np.ndarray, streams: int, chunk: int, shuffle: bool) -> None:
    found = epoch(sizes, streams, chunk, shuffle=shuffle)
    whole = flat(found.order, list(found.read(0, found.rows)))
    assert sorted(whole) == [(g, r) for g, size in enumerate(sizes) for r in range(size)]
    for step in (1, 3, 17):
        cuts = range(0, found.rows, step)
        cut = [one for at in cuts for one in found.read(at, min(at + step, found.rows))]
        assert flat(found.order, cut) == whole


def test_without_a_shuffle_and_with_one_stream_it_is_the_stored_order() -> None:
    found = epoch(SIZES[1], 1, 8, shuffle=False)
    assert flat(found.order, list(found.read(0, found.rows))) == [
        (g, r) for g, size in enumerate(SIZES[1]) for r in range(size)
    ]


def test_seed_and_epoch_decide_the_order() -> None:
    def rows(seed: int, number: int) -> list[tuple[int, int]]:
        found = epoch(SIZES[0], 4, 5, seed, number)
        return flat(found.order, list(found.read(0, found.rows)))

    assert rows(1, 2) == rows(1, 2)
    assert len({tuple(rows(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


def test_chunks_are_of_the_streams_in_turn() -> None:
    found = epoch(np.array([40] * 8), 4, 5)
    rows = list(found.read(0, found.rows))
    assert [(one.stream, one.size) for one in rows[:8]] == [(0, 5), (1, 5), (2, 5), (3, 5)] * 2
    assert len({one.group for one in rows[:4]}) == 4


def test_the_rest_of_each_stream_is_last() -> None:
    """35 rows, 4 streams of 8 or 9, chunks of 5: one round, then 3, 4, 4 and 4 rows."""
    found = epoch(np.array([35]), 4, 5)
    assert [(one.stream, one.size) for one in found.read(20, 35)] == [(s, found.order.length(s) - 5) for s in range(4)]


@pytest.mark.parametrize("streams", [8, 9])
def test_the_parts_of_a_group_that_two_streams_share_are_read_at_about_the_same_time(streams: int) -> None:
    """Both are first or last in their streams, and with an even number of streams the two are half of them apart."""
    sizes = np.array([50] * 31)
    order = Order(sizes, 0, 0, True, streams)
    pieces: dict[int, list[tuple[int, bool]]] = {}
    for stream in range(streams):
        groups = [one.group for one in order.read(stream, 0, order.length(stream))]
        for i, group in enumerate(groups):
            pieces.setdefault(group, []).append((stream, i == 0))
            assert i in (0, len(groups) - 1) or len(pieces[group]) == 1
    shared = [both for both in pieces.values() if len(both) == 2]
    assert len(shared) == streams - 1
    assert all(first[1] == second[1] for first, second in shared)
    if streams == 8:
        apart = [abs(first[0] - second[0]) for first, second in shared]
        assert apart.count(4) == 4


def test_rows_near_each_other_are_far_apart_when_stored() -> None:
    """Rank correlation of stored and read order: 0 for a permutation, with a deviation of 1 / sqrt(n)."""
    sizes = np.array([100] * 200)
    found = epoch(sizes, 64, 32)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = [int(starts[g]) + row for g, row in flat(found.order, list(found.read(0, found.rows)))]
    correlation = np.corrcoef(places, np.arange(len(places)))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(200)  # groups are permuted as a whole


def test_default_streams_fit_into_memory() -> None:
    """With two groups that are decoded ahead, whatever the machine and the place of the dataset."""
    mib = 1 << 20
    assert default_streams(32 * mib, 32 * mib, 66 * 32 * mib, True) == 64
    assert default_streams(32 * mib, 32 * mib, 66 * 32 * mib - 1, True) == 32
    assert default_streams(32 * mib, 64 * mib, 68 * 32 * mib, True) == 64
    assert default_streams(32 * mib, 64 * mib, 68 * 32 * mib - 1, True) == 32
    assert default_streams(33 * mib, 33 * mib, MAX_OPEN_BYTES, True) == 64
    assert default_streams(3 << 30, 3 << 30, 2 << 30, True) == 1
    assert default_streams(32 * mib, 32 * mib, 2 << 30, False) == 1


@pytest.mark.parametrize(("rows", "chunk"), [(0, 1), (1000, 1), (1024, 2), (10_000, 16), (16_384, 32), (10**9, 32)])
def test_default_chunks_leave_several_in_each_stream(rows: int, chunk: int) -> None:
    assert default_chunk_rows(rows, 64, 256) == chunk


@pytest.mark.parametrize(("batch_size", "chunk"), [(8, 8), (48, 16), (100, 4), (7, 1), (96, 32)])
def test_default_chunks_divide_a_batch(batch_size: int, chunk: int) -> None:
    assert default_chunk_rows(10**9, 64, batch_size) == chunk


def test_the_order_is_the_same_in_all_versions() -> None:
    """These rows were read by the first version. A checkpoint of a running epoch depends on them."""
    found = epoch(np.array([4, 3, 5]), 2, 2, seed=3, number=1)
    rows = flat(found.order, list(found.read(0, found.rows)))
    assert rows == ROWS_OF_THE_FIRST_VERSION


ROWS_OF_THE_FIRST_VERSION = [
    (0, 3),
    (0, 0),
    (2, 1),
    (2, 4),
    (0, 2),
    (0, 1),
    (2, 3),
    (2, 0),
    (1, 1),
    (1, 2),
    (2, 2),
    (1, 0),
]
