"""Masks over grids of tokens: of single cells, in tubes, in blocks.

Token ``(t, h, w)`` of a grid ``(T, H, W)`` is number ``(t * H + h) * W + w`` of its row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.training._choice import choose
from pipeline.training._random import Draws, below, fraction

_ATTEMPTS = 10
"""Blocks that are tried one after the other before a row is left as it is."""


@dataclass(frozen=True)
class Cells:
    """What is masked or not as a whole: a token, a square of tokens, or such a square in all frames."""

    counts: np.ndarray
    """[rows] int64: cells in each row."""
    of_tokens: np.ndarray
    """[tokens of all rows] int64: the cell of each token, counted over all rows."""

    @classmethod
    def of(cls, grids: np.ndarray, unit: int, in_tubes: bool) -> Cells:
        """Returns the cells of some grids.

        Args:
            grids: [rows, 3] int64: ``(T, H, W)``.
            unit: tokens on each side of a square. Those at the lower and the right edge may have fewer.
            in_tubes: whether a cell extends over all frames.
        """
        frames, heights, widths = grids.T
        down, across = -(-heights // unit), -(-widths // unit)
        counts = down * across * (1 if in_tubes else frames)
        tokens = grids.prod(axis=1)
        row = np.repeat(np.arange(len(grids)), tokens)
        number = np.arange(len(row)) - np.repeat(np.cumsum(tokens) - tokens, tokens)
        in_frame, width = number % (heights * widths)[row], widths[row]
        cell = in_frame // width // unit * across[row] + in_frame % width // unit
        if not in_tubes:
            cell += number // (heights * widths)[row] * (down * across)[row]
        return cls(counts, cell + (np.cumsum(counts) - counts)[row])


def exact_masks(cells: Cells, chosen: np.ndarray, draws: Draws) -> np.ndarray:
    """Returns [tokens of all rows] bool: those of ``chosen`` [rows] random cells of each row."""
    masks: np.ndarray = choose(cells.counts, chosen, draws.of_values(cells.counts)[:, 0])[cells.of_tokens]
    return masks


def block_masks(
    grids: np.ndarray, targets: np.ndarray, least: int, aspects: tuple[float, float], draws: Draws
) -> np.ndarray:
    """Returns [tokens of all rows] bool: rectangles, the same in all frames.

    The algorithm of BEiT's code: a block has between ``least`` tokens and as many as are still to be masked, a side
    ratio that is log-uniform, and is smaller than the grid on both sides. It is tried ten times; one that adds no token
    or too many is rejected.

    Args:
        grids: [rows, 3] int64: ``(T, H, W)``.
        targets: [rows]: tokens to mask in a frame; no row has more.
        least: tokens of a block, at most as many as the target.
        aspects: the smallest and the largest ratio of height to width.
        draws: of the rows.
    """
    heights, widths = grids[:, 1], grids[:, 2]
    masks = np.zeros((len(grids), int(heights.max(initial=0)), int(widths.max(initial=0))), bool)
    vertical, horizontal = (np.arange(size)[None] for size in masks.shape[1:])
    smallest = np.minimum(least, targets)
    left, failed = targets.copy(), np.zeros(len(grids), np.int64)
    low, high = (math.log(aspect) for aspect in aspects)
    active, attempt = np.flatnonzero(left > 0), 0
    while active.size:
        numbers = draws.of_rows(attempt, active)
        area = smallest[active] + (left - smallest)[active] * fraction(numbers[:, 0])
        aspect = np.exp(low + (high - low) * fraction(numbers[:, 1]))
        height, width = (np.rint(np.sqrt(one)).astype(np.int64) for one in (area * aspect, area / aspect))
        fits = (height < heights[active]) & (width < widths[active])
        top = below(numbers[:, 2], np.maximum(heights[active] - height + 1, 1))
        side = below(numbers[:, 3], np.maximum(widths[active] - width + 1, 1))
        is_row = (vertical >= top[:, None]) & (vertical < (top + height)[:, None])
        is_column = (horizontal >= side[:, None]) & (horizontal < (side + width)[:, None])
        added = is_row[:, :, None] & is_column[:, None, :] & ~masks[active]
        count = added.sum(axis=(1, 2))
        accepted = fits & (count > 0) & (count <= left[active])
        masks[active[accepted]] |= added[accepted]
        left[active] -= np.where(accepted, count, 0)
        failed[active] = np.where(accepted, 0, failed[active] + 1)
        active = active[(left[active] > 0) & (failed[active] < _ATTEMPTS)]
        attempt += 1
    is_cell = (vertical < heights[:, None])[:, :, None] & (horizontal < widths[:, None])[:, None, :]
    found: np.ndarray = masks[is_cell][Cells.of(grids, 1, in_tubes=True).of_tokens]
    return found
