"""Mixtures and labelled readers have one sequence of batches for any ranks and workers, also after a resume."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest

from tests.dataset.loading.processes.cases import (
    EPOCH_ROWS,
    PARTS,
    WEIGHTS,
    Case,
    Row,
    cases,
    interleaved,
    write_parts,
)
from tests.dataset.loading.test_torch_reader import check_dealt

NUMBERS = [(ranks, workers) for ranks in (1, 2, 3) for workers in (0, 2)]
NAMES = [
    "mixture",
    "mixture_filtered",
    "mixture_in_stored_order",
    "mixture_labelled",
    "labels_by_window",
    "labels_by_sample",
]


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return cases(write_parts(tmp_path_factory.mktemp("parts")))


def read(case: Case, world_size: int, workers: int, state: Any = None, **options: Any) -> list[list[Row]]:
    """Returns the batches of all ranks in their global order, after those of ``state``."""
    ranks = []
    for rank in range(world_size):
        loader = case.make(rank=rank, world_size=world_size, **options).loader(workers)
        if state is not None:
            loader.load_state_dict(state)
        ranks.append(list(loader))
    return interleaved(ranks)


@functools.cache
def expected_of(case: Case, **options: Any) -> list[list[Row]]:
    """Returns the batches of one rank without workers."""
    return read(case, 1, 0, **options)


def check_rows(case: Case, batches: list[list[Row]]) -> None:
    """Checks the values of all rows, and how often each is there in an epoch."""
    rows = [row for batch in batches for row in batch]
    assert rows == [case.rows[row["number"]] for row in rows]
    if case.is_mixture:
        assert len(rows) == EPOCH_ROWS
        _check_shares([row["number"] for row in rows])
    else:
        assert sorted(row["number"] for row in rows) == sorted(case.rows)


def _check_shares(numbers: list[int]) -> None:
    """Checks the share of each dataset. `test_mixture_counts` checks how often each row is read."""
    for (start, end), weight in zip(PARTS, WEIGHTS, strict=True):
        share = sum(start <= number < end for number in numbers) / len(numbers)
        assert share == pytest.approx(weight, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_rank_reads_the_rows_of_pyarrow(all_cases: dict[str, Case], name: str) -> None:
    for epoch in (0, 1):
        check_rows(all_cases[name], expected_of(all_cases[name], epoch=epoch))


def _check_same(case: Case, world_size: int, workers: int, **options: Any) -> None:
    expected = expected_of(case, **options)
    check_rows(case, expected)
    check_dealt(read(case, world_size, workers, **options), expected, world_size)


@pytest.mark.parametrize("name", ["mixture", "labels_by_window"])
def test_two_ranks_with_two_workers_each_read_the_same(all_cases: dict[str, Case], name: str) -> None:
    _check_same(all_cases[name], 2, 2, epoch=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("world_size", "workers"), NUMBERS)
@pytest.mark.parametrize("options", [{"epoch": 1}, {"streams": 5, "chunk_rows": 3, "seed": 7, "epoch": 2}])
def test_any_ranks_and_workers_read_the_same(
    all_cases: dict[str, Case], name: str, world_size: int, workers: int, options: dict[str, Any]
) -> None:
    _check_same(all_cases[name], world_size, workers, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "mixture_labelled", "labels_by_window", "labels_by_sample"])
def test_epochs_of_persistent_workers(all_cases: dict[str, Case], name: str) -> None:
    case = all_cases[name]
    loaders = [
        case.make(rank=rank, world_size=2).loader(2, persistent_workers=True, multiprocessing_context=method)
        for rank, method in enumerate(("fork", "spawn"))
    ]
    for epoch in range(3):
        check_dealt(interleaved([list(one) for one in loaders]), expected_of(case, epoch=epoch), 2)


def _stop(case: Case, rng: np.random.Generator, epoch: int) -> tuple[dict[str, Any], int, bool]:
    """Stops all of 1 to 3 ranks after the same round.

    Returns their state, the number of batches that they were given together, and whether the epoch has ended.
    """
    world_size, workers = int(rng.integers(1, 4)), int(rng.choice([0, 2]))
    loaders = [case.make(rank=rank, world_size=world_size, epoch=epoch).loader(workers) for rank in range(world_size)]
    stop = int(rng.integers(1, len(loaders[0]) + 1))
    for one in loaders:
        for _, _ in zip(range(stop), one, strict=False):
            pass
    states = [json.loads(json.dumps(one.state_dict())) for one in loaders]
    assert all(state == states[0] for state in states)
    return states[0], stop * world_size, stop == len(loaders[0])


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("labels_by_window", 1),
        *(
            pytest.param(name, 30, marks=pytest.mark.slow)
            for name in ("mixture", "mixture_labelled", "labels_by_window", "labels_by_sample")
        ),
    ],
)
def test_a_resume_on_other_ranks_and_workers_reads_the_rest(all_cases: dict[str, Case], name: str, stops: int) -> None:
    case, rng = all_cases[name], np.random.default_rng(stops)
    expected = [expected_of(case, epoch=epoch) for epoch in range(4 if stops > 1 else 2)]
    for _ in range(stops):
        epoch = int(rng.integers(len(expected) - 1))
        state, done, has_ended = _stop(case, rng, epoch)
        remaining = expected[epoch + 1] if has_ended else expected[epoch][done:]
        after = int(rng.integers(1, 4))
        found = read(case, after, int(rng.choice([0, 2])), state)
        check_dealt(found, remaining, after)
        if not has_ended:
            numbers = {row["number"] for batch in [*expected[epoch][:done], *found] for row in batch}
            assert numbers == {row["number"] for batch in expected[epoch] for row in batch}
