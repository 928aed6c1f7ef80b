"""Random numbers that depend on a seed, an epoch, the number of a row, and the number of a value in the row.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). numpy has one
generator for each key and counter, so many short rows would need a loop; here all blocks are computed together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.dataset.loading.order.permutation import random_bits
from pipeline.dataset.loading.place import Place

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10
_CHUNK = 1 << 13
"""Blocks that are computed together, whose arrays stay in the cache of a core."""
_WORDS = 4
"""Numbers of a block."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of the rows of a batch.

    Args:
        seed: of the collate function.
        purpose: distinguishes draws of the same rows.
        place: the epoch and the numbers of the rows.
    """

    seed: int
    purpose: int
    place: Place

    def of_values(self, counts: np.ndarray, width: int = 1) -> np.ndarray:
        """Returns [sum(counts), width] uint64 below ``2 ** 32``, for each value of each row.

        Those of a value depend on its number in the row, not on the batch.

        Args:
            counts: [rows]: values in each row.
            width: numbers for each value.
        """
        numbers = counts * width
        blocks = -(-numbers // _WORDS)
        row = np.repeat(np.arange(len(counts)), blocks)
        block = np.arange(len(row)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        found = self._blocks(row, block).reshape(-1)
        if not np.array_equal(blocks * _WORDS, numbers):
            spare = np.stack([numbers, blocks * _WORDS - numbers], axis=1).reshape(-1)
            found = found[np.repeat(np.tile([True, False], len(counts)), spare)]
        return found.reshape(-1, width)

    def of_rows(self, number: int = 0, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns [rows, 4] uint64 below ``2 ** 32``, for each row.

        Args:
            number: of the draw. `of_values` of the same purpose draws the same numbers.
            rows: indices of the rows; None: all.
        """
        row = np.arange(len(self.place.rows)) if rows is None else rows
        return self._blocks(row, np.full(len(row), number))

    def _blocks(self, row: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Returns [blocks, 4]: block number ``block`` of each ``row``."""
        key = random_bits(1, self.seed, self.place.epoch, self.purpose)[0]
        rows = self.place.rows.view(np.uint64)[row]
        counters = (block.astype(np.uint64), np.zeros(len(row), np.uint64), rows & _LOW, rows >> _HALF)
        found = np.empty((len(row), _WORDS), np.uint64)
        for start in range(0, len(row), _CHUNK):
            part = slice(start, start + _CHUNK)
            for word, numbers in enumerate(philox([counter[part] for counter in counters], (key & _LOW, key >> _HALF))):
                found[part, word] = numbers
        return found


def philox(counter: list[np.ndarray], key: tuple[np.uint64, np.uint64]) -> list[np.ndarray]:
    """Returns the four words of each block: arrays [n] uint64 below ``2 ** 32``.

    Args:
        counter: four arrays [n] uint64 below ``2 ** 32``.
        key: two numbers below ``2 ** 32``.
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> _HALF) ^ b ^ first, right & _LOW, (left >> _HALF) ^ d ^ second, left & _LOW
        first, second = (first + _KEY_STEPS[0]) & _LOW, (second + _KEY_STEPS[1]) & _LOW
    return [a, b, c, d]


def fraction(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers below ``2 ** 32`` as float64 in [0, 1)."""
    found: np.ndarray = numbers * 2.0**-32
    return found


def below(numbers: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Returns integers (int64) in ``[0, count)`` from numbers below ``2 ** 32``.

    The probabilities of two of them differ by at most ``count / 2 ** 32`` of each.
    """
    found: np.ndarray = ((numbers * np.asarray(count).astype(np.uint64)) >> _HALF).astype(np.int64)
    return found
