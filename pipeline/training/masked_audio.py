"""MaskedAudioCollate: the masked spans of wav2vec 2.0 over audio frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.core.schema import column
from pipeline.dataset.collate import Collate
from pipeline.dataset.collate.padded import Batch
from pipeline.dataset.collate.ragged import mask, padded
from pipeline.dataset.loading.place import Place
from pipeline.training._choice import choose
from pipeline.training._random import Draws, fraction
from pipeline.training._rows import KeptRows, check_column, merged

_STARTS, _ROUNDING = 3, 4
"""Purposes of random numbers."""


@dataclass(frozen=True)
class MaskedAudioCollate:
    """Converts a batch to tensors, and chooses the audio frames that are predicted, as wav2vec 2.0 does (Baevski et al.
    2020, https://arxiv.org/abs/2006.11477). Picklable.

    In a row of n frames, ``start_rate * n`` different frames, rounded up or down at random, begin a span of ``span``
    frames; spans may overlap, and end within the row. With the defaults, which are the paper's, 49 % of the frames of a
    long row are masked, in runs of 14.7 frames on average. A row has at least ``min_spans`` spans, at most
    ``n // span``, and as many as it has places for them: a row with fewer than ``span`` frames has none.

    The batch has the tensors of `Collate` for R rows, those with tokens, ``left_out`` ([] int64, the number of other
    rows), and ``masked``: [R, N] bool, True for frames that are predicted; False for padding. It is
    ``mask_time_indices`` of the models of `transformers`, whose ``mask_time_prob`` is ``start_rate * span``.

    The masks of a row depend on ``seed`` and its `Place`, not on the batch: see `pipeline.training`.

    Args:
        collate: the columns: `Dataset.collate`.
        feature: its column ``feature_tokens`` is read, or ``feature_token_ids`` if it has only those.
        start_rate: share of the frames that begin a span: p of the paper.
        span: frames of a span: M of the paper.
        min_spans: spans of a row at least. 2, as in fairseq's pre-training; `transformers`' function has 0 by default.
        seed: decides the masks, with the place of a row.
    """

    wants_place: ClassVar[bool] = True
    collate: Collate
    feature: str
    start_rate: float = 0.065
    span: int = 10
    min_spans: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_column(self.collate, self._tokens, ("matrix", "sequence"), "tokens")
        if not 0 <= self.start_rate <= 1:
            raise ConfigError("start_rate", f"found {self.start_rate}", "0 to 1")
        if self.span < 1:
            raise ConfigError("span", f"found {self.span}", "at least 1")
        if self.min_spans < 0:
            raise ConfigError("min_spans", f"found {self.min_spans}", "at least 0")

    def __call__(self, batch: Batch, place: Place | None = None) -> dict[str, Any]:
        rows = KeptRows.of(self.collate, batch, [self._tokens])
        lengths = rows.ragged(self._tokens).lengths
        masks = padded(self._masks(lengths, rows.place(place)), mask(lengths))
        return merged(rows.tensors(), {"masked": masks})

    def _masks(self, lengths: np.ndarray, place: Place) -> np.ndarray:
        """Returns [frames of all rows] bool."""
        rounding = fraction(Draws(self.seed, _ROUNDING, place).of_rows()[:, 0])
        starts = np.maximum(lengths - self.span + 1, 0)
        spans = np.floor(self.start_rate * lengths + rounding).astype(np.int64)
        spans = np.minimum.reduce([np.maximum(spans, self.min_spans), lengths // self.span, starts])
        is_start = choose(starts, spans, Draws(self.seed, _STARTS, place).of_values(starts)[:, 0])
        firsts = np.cumsum(lengths) - lengths
        in_row = np.arange(len(is_start)) - np.repeat(np.cumsum(starts) - starts, starts)
        first = (in_row + np.repeat(firsts, starts))[is_start]
        change = np.zeros(int(lengths.sum()) + 1, np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, first + self.span, -1)
        masks: np.ndarray = np.cumsum(change)[:-1] > 0
        return masks

    @property
    def _tokens(self) -> str:
        tokens, ids = (column(self.feature, part) for part in ("tokens", "token_ids"))
        return ids if tokens not in self.collate.columns and ids in self.collate.columns else tokens
