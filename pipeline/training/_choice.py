"""Random choices of an exact number of values in each row."""

from __future__ import annotations

import numpy as np

from pipeline.dataset.collate.ragged import mask, padded

_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_HALF = np.uint64(32)


def choose(counts: np.ndarray, chosen: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns [sum(counts)] bool: in each row those values that have the smallest random numbers.

    Without replacement, and each set of values of a row with the same probability. Of equal numbers the first is
    smaller, so that the choice in a row does not depend on the other rows.

    Args:
        counts: [rows]: values in each row.
        chosen: [rows]: how many are chosen, at most ``counts``.
        numbers: [sum(counts)] uint64 below ``2 ** 32``: random numbers, one for each value.
    """
    if not len(numbers):
        return np.zeros(0, bool)
    position = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = (numbers << _HALF) | position.astype(np.uint64)
    ordered = np.sort(padded(keys, mask(counts), _LAST), axis=1)
    largest = np.take_along_axis(ordered, np.maximum(chosen - 1, 0)[:, None], axis=1)[:, 0]
    found: np.ndarray = (keys <= np.repeat(largest, counts)) & np.repeat(chosen > 0, counts)
    return found
