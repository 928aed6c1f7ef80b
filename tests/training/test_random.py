"""Philox gives its published numbers; those of a row depend on the row, not on the batch."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.loading.place import Place
from pipeline.training._choice import choose
from pipeline.training._random import Draws, below, fraction, philox
from tests.training.batches import fits, is_near, place

KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
"""Counter, key and result of the known-answer tests of Random123, the authors' library."""


def test_known_answers() -> None:
    counters = [np.array(words, np.uint64) for words in zip(*(counter for counter, _, _ in KNOWN), strict=True)]
    for i, (_, key, result) in enumerate(KNOWN):
        words = philox(counters, (np.uint64(key[0]), np.uint64(key[1])))
        assert [int(word[i]) for word in words] == result


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_numbers_of_a_row_do_not_depend_on_the_batch(width: int) -> None:
    counts = np.array([5, 0, 1, 4, 9000, 3])
    draws = Draws(7, 1, place(len(counts), epoch=2))
    found = draws.of_values(counts, width)
    assert found.shape == (counts.sum(), width)
    ends = np.cumsum(counts)
    for i, count in enumerate(counts):
        alone = Draws(7, 1, Place(2, np.array([i]))).of_values(np.array([count]), width)
        assert np.array_equal(alone, found[ends[i] - count : ends[i]])
        longer = Draws(7, 1, Place(2, np.array([i]))).of_values(np.array([count + 3]), width)
        assert np.array_equal(longer[:count], found[ends[i] - count : ends[i]])


def test_everything_that_decides_them_counts() -> None:
    counts = np.full(3, 100)
    base = Draws(0, 1, place(3)).of_values(counts)
    others = [
        Draws(1, 1, place(3)),
        Draws(0, 2, place(3)),
        Draws(0, 1, place(3, epoch=1)),
        Draws(0, 1, place(3, first=3)),
    ]
    for other in others:
        assert (other.of_values(counts) == base).mean() < 0.01
    rows = np.array([2**32, 2**63 - 1, -1])  # hashes use all bits
    assert len(np.unique(Draws(0, 1, Place(0, np.append(rows, 0))).of_rows())) == 16
    assert np.array_equal(Draws(0, 1, place(3)).of_rows(0)[:, 0], base.reshape(3, 100)[:, 0])
    assert np.array_equal(Draws(0, 1, place(3)).of_rows(1, np.array([2]))[0], base.reshape(3, 100)[2, 4:8])


def test_they_are_uniform_and_do_not_correlate() -> None:
    rows, values = 500, 400
    found = fraction(Draws(0, 1, place(rows)).of_values(np.full(rows, values))).reshape(rows, values)
    assert fits(np.histogram(found, 50, (0, 1))[0], np.ones(50))
    assert not fits(np.histogram(found**1.02, 50, (0, 1))[0], np.ones(50)), "the test sees a bias of two percent"
    for shifted in (np.roll(found, 1, axis=0), np.roll(found, 1, axis=1), np.roll(found, 4, axis=1)):
        correlation = np.corrcoef(found.reshape(-1), shifted.reshape(-1))[0, 1]
        assert abs(correlation) < 5 / np.sqrt(rows * values)
    counts = np.bincount(below(Draws(0, 2, place(rows)).of_values(np.full(rows, values))[:, 0], 7), minlength=7)
    assert fits(counts, np.ones(7))
    assert below(np.array([0, 2**32 - 1], np.uint64), 7).tolist() == [0, 6]


def test_a_choice_by_hand() -> None:
    numbers = np.array([5, 1, 5, 9, 2, 0, 7, 7], np.uint64)
    found = choose(np.array([3, 0, 2, 3]), np.array([2, 0, 0, 2]), numbers)
    assert found.tolist() == [True, True, False, False, False, True, True, False]
    assert choose(np.array([2]), np.array([2]), np.array([2**32 - 1, 2**32 - 1], np.uint64)).tolist() == [True, True]
    assert choose(np.array([], int), np.array([], int), np.array([], np.uint64)).tolist() == []
    assert choose(np.array([0, 0]), np.array([0, 0]), np.array([], np.uint64)).tolist() == []


def test_each_set_of_values_is_chosen_as_often() -> None:
    rows = 20_000
    counts, chosen = np.full(rows, 5), np.full(rows, 2)
    found = choose(counts, chosen, Draws(0, 1, place(rows)).of_values(counts)[:, 0]).reshape(rows, 5)
    assert (found.sum(axis=1) == 2).all()
    sets = np.bincount(found @ (1 << np.arange(5)), minlength=32)
    assert (sets > 0).sum() == 10
    assert fits(sets[sets > 0], np.ones(10))
    assert all(is_near(count, rows, 0.4) for count in found.sum(axis=0))
