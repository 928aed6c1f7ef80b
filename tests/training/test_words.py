"""Which tokens begin a word, against the tokenizer's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.demo.checkpoints import text as checkpoints
from pipeline.training.words import WordBoundaries

TEXT = "a small red circle on a violet ground hums while unbelievable shapes appear"
TOKENIZERS = ["bert", "distilbert", "roberta", "modernbert", "xlm_roberta", "mpnet", "clip", "embedding_gemma2"]


@pytest.fixture(scope="module")
def tokenizers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Fast tokenizers of small checkpoints, of each kind: WordPiece, byte-level BPE, unigrams, BPE with a suffix."""
    from transformers import AutoTokenizer

    found = {name: AutoTokenizer.from_pretrained(models / name) for name in ("bert", "clip", "embedding_gemma2")}
    for name in TOKENIZERS:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            getattr(checkpoints, f"write_{name}")(str(folder))
            found[name] = AutoTokenizer.from_pretrained(folder)
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_are_those_between_spaces(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    encoded = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array(encoded["input_ids"])
    assert len(ids) > len(TEXT.split()), "a word of several tokens"
    first = np.arange(len(ids)) == 0
    starts = WordBoundaries.of_tokenizer(tokenizer).starts(ids, np.zeros(len(ids), bool), first)
    spans: list[tuple[int, int]] = []
    for start, (begin, end) in zip(starts, encoded["offset_mapping"], strict=True):
        spans = [*spans, (begin, end)] if start else [*spans[:-1], (spans[-1][0], end)]
    assert [TEXT[begin:end].strip() for begin, end in spans] == TEXT.split()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_punctuation(tokenizers: dict[str, Any], name: str) -> None:
    """It is a word of its own where the tokenizer marks pieces that continue a word, or that end it."""
    tokenizer = tokenizers[name]
    ids = np.array(tokenizer("red.", add_special_tokens=False)["input_ids"])
    starts = WordBoundaries.of_tokenizer(tokenizer).starts(ids, np.zeros(len(ids), bool), np.arange(len(ids)) == 0)
    assert starts.sum() == (2 if name in ("bert", "distilbert", "mpnet", "clip") else 1)


def test_starts_by_hand() -> None:
    words = WordBoundaries(np.array([True, False, True, False, False]))
    ids = np.array([1, 0, 1, 1, 4, 1, 2, 1])
    special, first = ids == 4, np.array([1, 0, 0, 0, 0, 0, 0, 1], bool)
    assert words.starts(ids, special, first).tolist() == [True, True, False, False, True, True, True, True]
    ends = WordBoundaries(np.zeros(5, bool), np.array([False, True, False, False, False]))
    assert ends.starts(ids, special, first).tolist() == [True, True, False, True, True, True, True, True]
    empty = np.zeros(0, bool)
    assert words.starts(np.zeros(0, int), empty, empty).tolist() == []


@pytest.mark.parametrize(
    ("begins", "ends"), [(np.zeros(3), None), (np.zeros((3, 1), bool), None), (np.zeros(3, bool), np.zeros(4, bool))]
)
def test_arrays_that_do_not_fit(begins: np.ndarray, ends: np.ndarray | None) -> None:
    with pytest.raises(ConfigError, match=r"bool \[vocabulary\]"):
        WordBoundaries(begins, ends)


def test_tokenizers_without_a_mark() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    with pytest.raises(ConfigError, match="does not mark where words begin"):
        WordBoundaries.of_tokenizer(plain)


def test_slow_tokenizers() -> None:
    class Slow:
        def __len__(self) -> int:
            return 3

        def convert_ids_to_tokens(self, ids: range) -> list[str]:
            return [str(one) for one in ids]

    with pytest.raises(ConfigError, match="Slow is a slow one"):
        WordBoundaries.of_tokenizer(Slow())
