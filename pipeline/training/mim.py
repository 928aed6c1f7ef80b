"""MimCollate: masked modelling of images and videos over the grids of their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.core.schema import column
from pipeline.dataset.collate import Collate
from pipeline.dataset.collate.padded import Batch
from pipeline.dataset.collate.ragged import mask, padded
from pipeline.dataset.loading.place import Place
from pipeline.training._grid_masks import Cells, block_masks, exact_masks
from pipeline.training._random import Draws
from pipeline.training._rows import KeptRows, check_column, merged

_PURPOSE = 2
_EPSILON = 1e-9
"""A ratio times a number of tokens is no whole number in binary, although it is one in decimal."""


@dataclass(frozen=True)
class MimCollate:
    """Converts a batch to tensors, and chooses the tokens of an image or a video that are predicted. Picklable.

    ``shape`` is how they are chosen. Of n tokens, or squares, ``ratio`` are chosen:

    - random: exactly ``ceil(ratio * n)`` of the ``T * H * W`` tokens, as in MAE (He et al. 2022,
      https://arxiv.org/abs/2111.06377; ratio 0.75). With ``unit`` they are squares of ``unit`` by ``unit`` tokens in
      one frame, as in SimMIM (Xie et al. 2022, https://arxiv.org/abs/2111.09886; ratio 0.6, squares of 32 pixels).
    - tube: exactly ``floor(ratio * n)`` of the ``H * W`` places of a frame, the same in all frames, as in VideoMAE
      (Tong et al. 2022, https://arxiv.org/abs/2203.12602; ratio 0.9). ``unit`` applies, too.
    - block: rectangles of at least ``min_block`` tokens with side ratios from ``min_aspect`` to its inverse, the same
      in all frames, as in BEiT (Bao et al. 2022, https://arxiv.org/abs/2106.08254; ratio 75 / 196 in its code). At most
      ``round(ratio * H * W)`` in a frame, and not always so many: rows have different numbers of masked tokens.

    At least one token, or square, of a row stays visible.

    The batch has the tensors of `Collate` for R rows, those with tokens and a grid, ``left_out`` ([] int64, the number
    of other rows), and ``masked``: [R, N] bool, True for tokens that are predicted; False for padding. It is
    ``bool_masked_pos`` of the models of `transformers`. If all rows have the same grid, and for random and tube, the
    visible tokens ``tokens[~masked].reshape(R, -1, d)`` are a batch without padding, which is all that MAE encodes.

    The masks of a row depend on ``seed`` and its `Place`, not on the batch: see `pipeline.training`.

    Args:
        collate: the columns: `Dataset.collate`.
        feature: its columns ``feature_tokens`` and ``feature_grid`` are read.
        ratio: share of the tokens that are masked, between 0 and 1.
        shape: random, tube or block.
        unit: tokens on each side of a square, for random and tube.
        min_block: tokens of the smallest block, or fewer if fewer are to be masked.
        min_aspect: the smallest ratio of height to width of a block.
        seed: decides the masks, with the place of a row.
    """

    wants_place: ClassVar[bool] = True
    collate: Collate
    feature: str
    ratio: float
    shape: Literal["random", "tube", "block"] = "random"
    unit: int = 1
    min_block: int = 16
    min_aspect: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_column(self.collate, self._tokens, ("matrix", "sequence"), "tokens")
        check_column(self.collate, self._grid, ("vector",), "grids")
        if self.shape not in ("random", "tube", "block"):
            raise ConfigError("shape", f"found {self.shape!r}", "one of: random, tube, block")
        if not 0 < self.ratio < 1:
            raise ConfigError("ratio", f"found {self.ratio}", "between 0 and 1")
        if self.unit < 1 or (self.unit > 1 and self.shape == "block"):
            raise ConfigError("unit", f"found {self.unit} for {self.shape!r}", "at least 1; 1 for 'block'")
        if self.min_block < 1:
            raise ConfigError("min_block", f"found {self.min_block}", "at least 1")
        if not 0 < self.min_aspect <= 1:
            raise ConfigError("min_aspect", f"found {self.min_aspect}", "over 0, up to 1")

    def __call__(self, batch: Batch, place: Place | None = None) -> dict[str, Any]:
        rows = KeptRows.of(self.collate, batch, [self._tokens, self._grid])
        lengths = rows.ragged(self._tokens).lengths
        grids = rows.ragged(self._grid).values.reshape(-1, 3).astype(np.int64)
        self._check(grids, lengths)
        draws = Draws(self.seed, _PURPOSE, rows.place(place))
        masks = padded(self._masks(grids, draws), mask(lengths))
        return merged(rows.tensors(), {"masked": masks})

    def _masks(self, grids: np.ndarray, draws: Draws) -> np.ndarray:
        if self.shape == "block":
            targets = np.rint(self.ratio * grids[:, 1] * grids[:, 2]).astype(np.int64)
            return block_masks(grids, targets, self.min_block, (self.min_aspect, 1 / self.min_aspect), draws)
        in_tubes = self.shape == "tube"
        cells = Cells.of(grids, self.unit, in_tubes)
        exact = self.ratio * cells.counts
        chosen = np.floor(exact + _EPSILON) if in_tubes else np.ceil(exact - _EPSILON)
        return exact_masks(cells, np.minimum(chosen.astype(np.int64), cells.counts - 1), draws)

    def _check(self, grids: np.ndarray, lengths: np.ndarray) -> None:
        wrong = np.flatnonzero((grids.prod(axis=1) != lengths) | (grids < 1).any(axis=1))
        if wrong.size:
            raise ConfigError(
                "columns",
                f"a row has {lengths[wrong[0]]} values in {self._tokens!r}, and grid {tuple(grids[wrong[0]].tolist())}",
                "restore the shards",
            )
        if self.shape != "random" and (grids[:, 1] * grids[:, 2] == 1).any():
            raise ConfigError("shape", f"{self.shape!r}, but a frame of {self.feature!r} has one token", "random")

    @property
    def _tokens(self) -> str:
        return column(self.feature, "tokens")

    @property
    def _grid(self) -> str:
        return column(self.feature, "grid")
