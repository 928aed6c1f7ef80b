"""A mixture has each row as often as the weight of its dataset and the epochs of its streams say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import dataset
from pipeline.dataset.loading.order.mixture import PATTERN
from tests.dataset.loading import written
from tests.dataset.loading.processes.cases import WEIGHTS, interleaved, plain_rows, write_parts
from tests.dataset.loading.test_torch_reader import numbers_of

STREAMS = 4


def _numbers(paths: list[str], weights: tuple[float, ...], epochs: int, world_size: int, **options: Any) -> list[int]:
    """Returns the ``number`` of each row of several epochs, as ranks with two workers each read them."""
    options = {"shuffle": True, "collate": numbers_of, **options}
    loaders = []
    for rank in range(world_size):
        sources = [(dataset.open(path), weight) for path, weight in zip(paths, weights, strict=True)]
        reader = dataset.mix(sources, ["number"], 32, rank, world_size, **options)
        loaders.append(reader.loader(2, persistent_workers=True))
    found = []
    for _ in range(epochs):
        found += [number for batch in interleaved([list(one) for one in loaders]) for number in batch]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_dataset_is_read_to_its_end_before_it_begins_again(tmp_path: Path, world_size: int, shuffle: bool) -> None:
    """With one stream. The epochs of the datasets end at other rows than those of the mixture."""
    paths = write_parts(tmp_path)
    stored = [[row["number"] for row in plain_rows(path)] for path in paths]
    found = _numbers(paths, WEIGHTS, 3, world_size, epoch_rows=700, streams=1, chunk_rows=4, shuffle=shuffle)
    assert len(found) == 2100
    for numbers, weight in zip(stored, WEIGHTS, strict=True):
        own = [number for number in found if number in {*numbers}]
        assert abs(len(own) - weight * 2100) <= 2 * 4  # chunks
        epochs = [own[start : start + len(numbers)] for start in range(0, len(own), len(numbers))]
        assert len(epochs) >= 2
        for epoch in epochs[:-1]:
            assert sorted(epoch) == numbers
        assert len({*epochs[-1]}) == len(epochs[-1])
        assert all(epoch == numbers[: len(epoch)] for epoch in epochs) == (not shuffle)
        assert shuffle == (epochs[0][: len(epochs[1])] != epochs[1])


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 3])
def test_over_a_pattern_each_row_has_its_exact_count(tmp_path: Path, world_size: int) -> None:
    """The shares are exact over a pattern, in which each stream is read a whole number of times.

    A stream of the first dataset has 64 rows and 3,072 of the 4,096 chunks: 48 epochs. One of the second has 32 rows
    and 1,024 chunks: 32 epochs.
    """
    rows = [written.row(number) for number in range(400)]
    paths = [
        written.write(tmp_path / "a", rows[:260], group_rows=20, deleted=[0, 7, 100, 259]),
        written.write(tmp_path / "b", rows[260:], group_rows=11, deleted=range(300, 312)),
    ]
    sizes = [len(plain_rows(path)) for path in paths]
    assert sizes == [64 * STREAMS, 32 * STREAMS]
    found = _numbers(
        paths, (3, 1), 2, world_size, epoch_rows=PATTERN * STREAMS // 2, streams=STREAMS, chunk_rows=1, seed=5
    )
    expected = {row["number"]: times for path, times in zip(paths, (48, 32), strict=True) for row in plain_rows(path)}
    assert Counter(found) == expected
