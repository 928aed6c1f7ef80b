"""Permutations depend only on their keys, and are the same in all versions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset.loading.order.permutation import permutation, random_bits


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x64, 10 rounds, as published (Salmon et al. 2011, section 2.2 and Random123's philox.h)."""
    mask = (1 << 64) - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_the_reference_gives_random123_s_known_answer() -> None:
    """kat_vectors of Random123: philox4x64 10, counter and key of zeros."""
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0] * 4, [0, 0]) == expected


@pytest.mark.parametrize("seed", [0, 7, (1 << 64) + 5])
def test_the_numbers_are_those_of_philox(seed: int) -> None:
    key = [seed % (1 << 64), seed >> 64]
    expected = [one for block in (1, 2) for one in philox([block, 3, 1, 9], key)]
    assert random_bits(7, seed, 3, 1, 9).tolist() == expected[:7]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_each_number_is_there_once(count: int) -> None:
    found = permutation(count, 5, 1)
    assert sorted(found.tolist()) == list(range(count))
    assert found.dtype == np.int64


def test_all_keys_matter() -> None:
    keys = [(0, 0), (1, 0), (0, 1), (0, 1, 1), (0, 1, 2), (0, 2, 1), (0, 1, 1, 1)]
    assert len({tuple(permutation(50, *key).tolist()) for key in keys}) == len(keys)


def test_permutations_are_uniform() -> None:
    """Each of four numbers is at each place in a quarter of 4000 permutations; chi-squared, 9 degrees of freedom."""
    counts = np.zeros((4, 4))
    for seed in range(4000):
        counts[np.arange(4), permutation(4, seed, 0)] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # p = 0.001
