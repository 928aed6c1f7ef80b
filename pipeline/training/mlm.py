"""MlmCollate: masked language modelling over token ids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.dataset.collate import Collate
from pipeline.dataset.collate.padded import Batch
from pipeline.dataset.collate.ragged import Ragged, mask, padded
from pipeline.dataset.loading.place import Place
from pipeline.training._random import Draws, below, fraction
from pipeline.training._rows import KeptRows, check_column, merged
from pipeline.training.words import WordBoundaries

IGNORED = -100
"""The label of tokens that are not predicted: ``ignore_index`` of torch's `cross_entropy`."""
_PURPOSE = 1


@dataclass(frozen=True, eq=False)
class MlmCollate:
    """Converts a batch to tensors in which some token ids are masked, as BERT does (Devlin et al. 2019,
    https://arxiv.org/abs/1810.04805). Picklable.

    Each token is chosen with probability ``rate``, as in RoBERTa and `transformers`. Of the chosen ones ``masked``
    become ``mask_id``, ``random`` another id, each of those below ``vocab_size`` that is not special with the same
    probability, and the others stay as they are. With ``words`` whole words are chosen instead, each with probability
    ``rate``; what becomes of a token is still decided for each token, as in BERT's whole-word masking.

    For R rows with at least one token, of N tokens at most, the batch has the tensors of `Collate` for the other
    columns, ``left_out`` ([] int64, the number of other rows), and:

    - ``input_ids``: [R, N] int64, padded with ``pad_id``.
    - ``attention_mask``: [R, N] bool, False for padding.
    - ``labels``: [R, N] int64, the ids of the chosen tokens, -100 elsewhere.

    With ``layout="packed"``, ``input_ids`` and ``labels`` are [M], or [S, length], without ``attention_mask`` and with
    ``cu_seqlens``, ``max_seqlen``, ``position_ids`` and ``document_ids``: see `PackedCollate`.

    The masks of a row depend on ``seed`` and its `Place`, not on the batch: see `pipeline.training`.

    Args:
        collate: the columns: `Dataset.collate`.
        column: of token ids. Tessera stores those of texts without special tokens.
        mask_id: the id of the mask token. It may be ``vocab_size``, if the model has one id more than the tokenizer.
        vocab_size: ids of the column are below.
        special_ids: ids that are never masked and never drawn.
        rate: probability of a token, or of a word.
        masked: share of the chosen tokens that become ``mask_id``.
        random: share of them that become a random id.
        words: which ids begin a word; None: tokens are chosen, not words.
        pad_id: the id of padding.
        layout: padded or packed.
        length: if packed, of each sequence; None: one sequence of all tokens.
        long: if packed, what happens to a row that is longer than ``length``: see `PackedCollate`.
        seed: decides the masks, with the place of a row.
    """

    wants_place: ClassVar[bool] = True
    collate: Collate
    column: str
    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...] = ()
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    words: WordBoundaries | None = None
    pad_id: int = 0
    layout: Literal["padded", "packed"] = "padded"
    length: int | None = None
    long: Literal["error", "cut"] = "error"
    seed: int = 0

    def __post_init__(self) -> None:
        check_column(self.collate, self.column, ("sequence",), "token ids")
        if not np.issubdtype(np.dtype(self.collate.columns[self.column].dtype), np.integer):
            raise ConfigError("columns", f"{self.column!r} does not hold integers", "a column of token ids")
        for name, value in (("rate", self.rate), ("masked", self.masked), ("random", self.random)):
            if not 0 <= value <= 1:
                raise ConfigError(name, f"found {value}", "0 to 1")
        if self.masked + self.random > 1 + 1e-9:
            raise ConfigError("masked, random", f"{self.masked} and {self.random}", "at most 1 together")
        if self.words is not None and len(self.words.begins) != self.vocab_size:
            raise ConfigError("words", f"of {len(self.words.begins)} ids", f"of {self.vocab_size}, as vocab_size")
        if self.layout == "padded" and self.length is not None:
            raise ConfigError("length", "given for padded rows", "layout='packed'")
        if self.random and not len(self._drawn):
            raise ConfigError("special_ids", "all ids are special", "ids that can be drawn, or random=0")

    @classmethod
    def of_tokenizer(
        cls, collate: Collate, column: str, tokenizer: Any, whole_words: bool = False, **options: Any
    ) -> MlmCollate:
        """Returns the collate function for the ids of a tokenizer of `transformers`.

        Args:
            collate: the columns.
            column: of token ids.
            tokenizer: with which the ids were made.
            whole_words: whether words are chosen, not tokens.
            options: other arguments, also instead of the tokenizer's.

        Raises:
            ConfigError: the tokenizer has no mask token (CLIP), and no ``mask_id`` is given.
        """
        if whole_words:
            options.setdefault("words", WordBoundaries.of_tokenizer(tokenizer))
        if "mask_id" not in options and tokenizer.mask_token_id is None:
            raise ConfigError("tokenizer", "it has no mask token", f"mask_id={len(tokenizer)}, one id more")
        found = {
            "mask_id": tokenizer.mask_token_id,
            "vocab_size": len(tokenizer),
            "special_ids": tuple(tokenizer.all_special_ids),
            "pad_id": tokenizer.pad_token_id or 0,
        }
        return cls(collate, column, **{**found, **options})

    def __call__(self, batch: Batch, place: Place | None = None) -> dict[str, Any]:
        rows = KeptRows.of(self.collate, batch, [self.column])
        ragged = rows.ragged(self.column)
        inputs, labels = self._masked(ragged, Draws(self.seed, _PURPOSE, rows.place(place)))
        return merged(rows.tensors(leave_out=[self.column]), self._laid_out(ragged, inputs, labels))

    def _masked(self, ragged: Ragged, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs and the labels: [ids] int64 each, of all rows."""
        ids = ragged.values.astype(np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            wrong = int(ids.max() if ids.min() >= 0 else ids.min())
            raise ConfigError("vocab_size", f"{self.vocab_size}, but {self.column!r} has id {wrong}", "a larger one")
        numbers = draws.of_values(ragged.lengths, 3)
        special = self._is_special[ids]
        is_chosen = fraction(numbers[:, 0]) < self.rate
        if self.words is not None:
            first = np.zeros(len(ids), bool)
            first[ragged.offsets[:-1]] = True  # no row is empty
            starts = self.words.starts(ids, special, first)
            is_chosen = is_chosen[starts][np.cumsum(starts) - 1]
        is_chosen &= ~special
        action = fraction(numbers[:, 1])
        is_random = is_chosen & (action >= self.masked) & (action < self.masked + self.random)
        inputs = np.where(is_chosen & (action < self.masked), self.mask_id, ids)
        inputs[is_random] = self._drawn[below(numbers[is_random, 2], len(self._drawn))]
        return inputs, np.where(is_chosen, ids, IGNORED)

    def _laid_out(self, ragged: Ragged, inputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Returns the tensors, or arrays, of the inputs and labels of all rows."""
        if self.layout == "padded":
            is_value = mask(ragged.lengths)
            return {
                "input_ids": padded(inputs, is_value, self.pad_id),
                "attention_mask": is_value,
                "labels": padded(labels, is_value, IGNORED),
            }
        packed = self.collate.packed(self.length, self.long)
        found = packed.pack("", Ragged(inputs, ragged.offsets, ragged.valid), self.pad_id)
        of_labels = packed.pack("", Ragged(labels, ragged.offsets, ragged.valid), IGNORED)
        return {
            "input_ids": found.pop(""),
            "labels": of_labels[""],
            **{name.removeprefix("_"): value for name, value in found.items()},
        }

    @cached_property
    def _is_special(self) -> np.ndarray:
        """[vocab_size] bool."""
        found = np.zeros(self.vocab_size, bool)
        found[[one for one in self.special_ids if one < self.vocab_size]] = True
        return found

    @cached_property
    def _drawn(self) -> np.ndarray:
        """The ids that random ones are drawn from."""
        found = ~self._is_special
        found[self.mask_id : self.mask_id + 1] = False
        return np.flatnonzero(found)
