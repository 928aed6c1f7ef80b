"""Batches are dealt to ranks in turn, and every rank has as many."""

from __future__ import annotations

import pytest

from pipeline.dataset.loading.order.deal import Deal, Tail


def read(deal: Deal, rank: int) -> list[list[int]]:
    """Returns the rows of each batch of a rank."""
    return [
        [row for start, end in deal.batch(rank, number) for row in range(start, end)] for number in range(deal.rounds)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 40, 41, 47, 320])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("tail", ["short", "drop", "repeat"])
def test_all_ranks_have_as_many_batches(world_size: int, rows: int, start: int, tail: Tail) -> None:
    deal = Deal(rows, 8, start, world_size, tail)
    ranks = [read(deal, rank) for rank in range(world_size)]
    assert {len(one) for one in ranks} == {deal.rounds}
    assert all(batch for one in ranks for batch in one)
    full, left = max(0, rows // 8 - start) // world_size, max(0, rows - start * 8)
    left -= full * world_size * 8
    for number in range(full):
        for rank in range(world_size):
            first = (start + number * world_size + rank) * 8
            assert ranks[rank][number] == list(range(first, first + 8))
    last = [row for one in ranks for batch in one[full:] for row in batch]
    remaining = list(range(rows - left, rows))
    assert deal.left_rows == left
    if tail == "drop" or not left:
        assert last == []
        assert deal.repeated_rows == 0
    elif tail == "short":
        assert sorted({*last}) == remaining
        assert len(last) == max(left, world_size)
        sizes = [len(one[full]) for one in ranks]
        assert max(sizes) - min(sizes) <= 1
        assert deal.repeated_rows == len(last) - left
    else:
        assert [len(one[full]) for one in ranks] == [8] * world_size
        assert last[:left] == remaining
        assert last[left:] == [i % rows for i in range(len(last) - left)]
        assert deal.repeated_rows == len(last) - left


def test_the_end_counts_the_batches_of_all_ranks() -> None:
    assert Deal(100, 4, 5, 3, "short").end(4) == 17
