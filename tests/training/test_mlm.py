"""Masked token ids: by hand, by their rates, and against transformers' own collator."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.training import MlmCollate, Place, WordBoundaries
from tests.dataset.loading import written
from tests.training.batches import alike, batch, collate, fits, is_near, place, texts

V, MASK, PAD = 500, 500, 7
SPECIAL = (0, 1, 2, 499)
IDS: list[Any] = [[10, 11, 12, 13], None, [14], [], [1, 15, 16, 2]]


def mlm(**options: Any) -> MlmCollate:
    options = {"mask_id": MASK, "vocab_size": V, "special_ids": SPECIAL, "pad_id": PAD, **options}
    return MlmCollate(collate(), "words_token_ids", **options)


def masked(one: MlmCollate, rows: Any, at: Place | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the ids, inputs and labels of all rows, one after the other."""
    done = one(rows, at or place(len(rows)))
    is_token = done["attention_mask"]
    return (
        rows["words_token_ids"].flatten().to_numpy().astype(np.int64),
        done["input_ids"][is_token].numpy(),
        done["labels"][is_token].numpy(),
    )


def test_all_masked_by_hand() -> None:
    rows = batch(words_token_ids=IDS, number=range(5))
    done = mlm(rate=1, masked=1, random=0)(rows, place(5))
    assert done["input_ids"].tolist() == [[MASK] * 4, [MASK, PAD, PAD, PAD], [1, MASK, MASK, 2]]
    assert done["labels"].tolist() == [[10, 11, 12, 13], [14, -100, -100, -100], [-100, 15, 16, -100]]
    assert done["attention_mask"].tolist() == [[True] * 4, [True, False, False, False], [True] * 4]
    assert done["number"].tolist() == [0, 2, 4]
    assert done["left_out"].item() == 2
    assert done["input_ids"].dtype == done["labels"].dtype == torch.int64
    assert "words_token_ids" not in done


@pytest.mark.parametrize(
    ("options", "is_chosen"), [({"rate": 0}, False), ({"rate": 1, "masked": 0, "random": 0}, True)]
)
def test_none_masked_by_hand(options: dict[str, Any], is_chosen: bool) -> None:
    ids, inputs, labels = masked(mlm(**options), batch(words_token_ids=[[10, 11], [12]]))
    assert inputs.tolist() == ids.tolist()
    assert labels.tolist() == (ids.tolist() if is_chosen else [-100] * 3)


def test_rates() -> None:
    ids, inputs, labels = masked(mlm(), texts([60] * 4000, V))
    special = np.isin(ids, SPECIAL)
    chosen = labels != -100
    assert not chosen[special].any()
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    assert np.array_equal(labels[chosen], ids[chosen])
    assert is_near(chosen.sum(), (~special).sum(), 0.15)
    kinds = np.stack(
        [inputs[chosen] == MASK, (inputs != ids)[chosen] & (inputs[chosen] != MASK), (inputs == ids)[chosen]]
    )
    same = 0.1 / (V - len(SPECIAL))  # random ids that are the token's own
    assert fits(kinds.sum(axis=1), [0.8, 0.1 - same, 0.1 + same])
    drawn = inputs[chosen & (inputs != MASK) & (inputs != ids)]
    counts = np.bincount(drawn, minlength=V)
    assert not counts[list(SPECIAL)].any()
    assert fits(np.delete(counts, SPECIAL), np.ones(V - len(SPECIAL)))
    per_position = chosen.reshape(4000, 60).sum(axis=0)
    assert fits(per_position, np.ones(60))
    per_row = np.bincount(chosen.reshape(4000, 60).sum(axis=1), minlength=61)
    binomial = np.array([_binomial(60, k, 0.15 * (V - len(SPECIAL)) / V) for k in range(61)])
    common = binomial * 4000 > 5
    assert fits(per_row[common], binomial[common])


def _binomial(n: int, k: int, p: float) -> float:
    from math import comb

    return float(comb(n, k) * p**k * (1 - p) ** (n - k))


def test_against_transformers(models: Path) -> None:
    """The same rates, kinds and number of masked tokens in a row as those of `DataCollatorForLanguageModeling`."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(models / "bert")
    rows, length = 3000, 40
    ours = MlmCollate.of_tokenizer(collate(), "words_token_ids", tokenizer)
    table = texts([length] * rows, len(tokenizer), seed=3)
    ids, inputs, labels = masked(ours, table)
    theirs = DataCollatorForLanguageModeling(tokenizer, seed=0)
    examples = [{"input_ids": one} for one in table["words_token_ids"].to_pylist()]
    expected = theirs(examples)
    other_inputs, other_labels = (expected[name].numpy().reshape(-1) for name in ("input_ids", "labels"))

    def kinds(inputs: np.ndarray, labels: np.ndarray) -> list[int]:
        chosen = labels != -100
        is_mask = chosen & (inputs == tokenizer.mask_token_id)
        is_random = chosen & ~is_mask & (inputs != ids)
        return [(~chosen).sum(), is_mask.sum(), is_random.sum(), (chosen & ~is_mask & ~is_random).sum()]

    def per_row(labels: np.ndarray) -> np.ndarray:
        return np.bincount((labels.reshape(rows, length) != -100).sum(axis=1), minlength=length)

    assert alike(kinds(inputs, labels), kinds(other_inputs, other_labels))
    assert alike(per_row(labels), per_row(other_labels))
    special = np.isin(ids, tokenizer.all_special_ids)
    assert {*labels[special], *other_labels[special]} == {-100}


# -- whole words -----------------------------------------------------------------------------------


WORDS = WordBoundaries(np.arange(V) % 3 == 0)
"""Ids that are multiples of three begin a word."""


def test_words_are_masked_as_a_whole() -> None:
    ids, inputs, labels = masked(mlm(words=WORDS, masked=1, random=0), texts([80] * 3000, V))
    special = np.isin(ids, SPECIAL)
    starts = (ids % 3 == 0) | special | np.roll(special, 1) | (np.arange(len(ids)) % 80 == 0)
    word = np.cumsum(starts) - 1
    words = np.bincount(word)
    chosen = np.bincount(word, labels != -100)
    of_special = np.bincount(word, special) > 0
    assert ((chosen == 0) | (chosen == words))[~of_special].all()
    assert not chosen[of_special].any()
    assert is_near((chosen > 0).sum(), (~of_special).sum(), 0.15)
    by_length = [(chosen > 0)[(words == n) & ~of_special].mean() for n in (1, 2, 3)]
    assert by_length == pytest.approx([0.15] * 3, abs=0.01)
    assert np.array_equal(inputs == MASK, labels != -100)


def test_pieces_of_a_chosen_word_are_replaced_one_by_one() -> None:
    rows = batch(words_token_ids=[[3, 4, 5]] * 20_000)
    ids, inputs, labels = masked(mlm(words=WORDS, rate=1, masked=0.8, random=0), rows)
    assert (labels == ids).all()
    masks = (inputs == MASK).reshape(-1, 3).sum(axis=1)
    assert fits(np.bincount(masks, minlength=4), [_binomial(3, k, 0.8) for k in range(4)])


def test_whole_words_against_transformers(models: Path) -> None:
    """The same number of chosen words and tokens, with words between spaces, of which the pieces are always masked."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(models / "bert")
    text = "a small red circle on a violet ground hums while unbelievable shapes appear downwards"
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    copies = 3000
    theirs = DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=True, mask_replace_prob=1, random_replace_prob=0
    )
    torch.manual_seed(0)
    expected = theirs([dict(encoded)] * copies)["labels"].numpy() != -100
    ours = MlmCollate.of_tokenizer(collate(), "words_token_ids", tokenizer, whole_words=True, masked=1, random=0)
    rows = batch(words_token_ids=[encoded["input_ids"]] * copies)
    found = ours(rows, place(copies))["labels"].numpy() != -100
    assert alike(found.sum(axis=0), expected.sum(axis=0))
    assert alike(np.bincount(found.sum(axis=1), minlength=60), np.bincount(expected.sum(axis=1), minlength=60))
    starts = ours.words.starts(
        np.array(encoded["input_ids"]), np.array(encoded["special_tokens_mask"], bool), np.zeros(found.shape[1], bool)
    )
    first = np.flatnonzero(starts)
    for masks in (found, expected):
        assert all((masks[:, a] == masks[:, b]).all() for a, b in zip(first, [*first[1:] - 1, -1], strict=True))


# -- what decides the masks ------------------------------------------------------------------------


def test_the_masks_of_a_row_do_not_depend_on_the_batch() -> None:
    rows = texts([20, 1, 90, 33, 5], V)
    one = mlm(seed=3)
    whole = one(rows, Place(2, np.arange(40, 45)))
    for i in (4, 0, 2):
        alone = one(rows.slice(i, 1), Place(2, np.array([40 + i])))
        length = alone["labels"].shape[1]
        assert torch.equal(alone["labels"][0], whole["labels"][i, :length])
        assert torch.equal(alone["input_ids"][0], whole["input_ids"][i, :length])
    for other, at in ((mlm(seed=4), Place(2, np.arange(40, 45))), (one, place(5, 3, 40)), (one, place(5, 2, 41))):
        assert not torch.equal(other(rows, at)["labels"], whole["labels"])


def test_left_out_rows_do_not_move_the_masks_of_others() -> None:
    with_null = batch(words_token_ids=[[9] * 50, None, [9] * 50])
    without = batch(words_token_ids=[[9] * 50, [9] * 50])
    one = mlm()
    assert torch.equal(one(with_null, place(3))["labels"], one(without, Place(0, np.array([0, 2])))["labels"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_any_ranks_and_a_resume_mask_the_same_tokens(tmp_path: Path, workers: int) -> None:
    """The masks of each row in two epochs, on one rank and on two ranks that are stopped and go on as three."""
    rows = [{**written.row(i), "words_token_ids": list(range(i % 30, i % 30 + 30))} for i in range(200)]
    data = dataset.open(written.write(tmp_path, rows))
    one = MlmCollate(data.collate, "words_token_ids", mask_id=1000, vocab_size=1000, seed=5)
    assert pickle.loads(pickle.dumps(one)).mask_id == 1000

    def read(rank: int, world_size: int, state: Any = None, stop: int | None = None) -> tuple[dict[Any, Any], Any]:
        reader: Any = data.to_torch(
            ["number", "words_token_ids"], rank, world_size, 8, shuffle=True, collate=one, tail="short"
        )
        if state:
            reader.load_state_dict(state)
        loader, found = reader.loader(workers), {}
        while loader.epoch < 2:
            for i, one_batch in enumerate(loader):
                epoch = int(reader.state_dict()["epoch"]) - (reader.state_dict()["position"] == 0)
                for number, labels in zip(one_batch["number"].tolist(), one_batch["labels"].tolist(), strict=True):
                    found[epoch, number] = labels
                if i + 1 == stop:
                    return found, reader.state_dict()
        return found, None

    expected, _ = read(0, 1)
    assert len(expected) == 400
    parts = [read(rank, 2, stop=7) for rank in range(2)]
    resumed = [read(rank, 3, parts[0][1])[0] for rank in range(3)]
    found: dict[Any, Any] = {}
    for part in (*(one for one, _ in parts), *resumed):
        assert all(found.get(key, labels) == labels for key, labels in part.items())
        found |= part
    assert found == expected
    assert sum(expected[0, i] != expected[1, i] for i in range(200)) > 190


# -- packed ----------------------------------------------------------------------------------------


def test_packed_by_hand() -> None:
    rows = batch(words_token_ids=IDS)
    done = mlm(rate=1, masked=1, random=0, layout="packed")(rows, place(5))
    assert done["input_ids"].tolist() == [MASK] * 4 + [MASK] + [1, MASK, MASK, 2]
    assert done["labels"].tolist() == [10, 11, 12, 13, 14, -100, 15, 16, -100]
    assert done["cu_seqlens"].tolist() == [0, 4, 5, 9]
    assert done["position_ids"].tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 3]
    assert done["document_ids"].tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert done["max_seqlen"] == 4
    done = mlm(rate=1, masked=1, random=0, layout="packed", length=6)(rows, place(5))
    assert done["input_ids"].tolist() == [[MASK] * 5 + [PAD], [1, MASK, MASK, 2, PAD, PAD]]
    assert done["labels"].tolist() == [[10, 11, 12, 13, 14, -100], [-100, 15, 16, -100, -100, -100]]
    assert done["cu_seqlens"].tolist() == [0, 4, 5, 6, 10, 12]


@pytest.mark.parametrize("length", [None, 100])
def test_packed_rows_have_the_masks_of_padded_ones(length: int | None) -> None:
    rows = texts([20, 1, 90, 33, 5, 64], V)
    padded = mlm(words=WORDS)(rows, place(6))
    packed = mlm(words=WORDS, layout="packed", length=length)(rows, place(6))
    is_token = packed["document_ids"] >= 0
    for name in ("input_ids", "labels"):
        assert torch.equal(packed[name][is_token], padded[name][padded["attention_mask"]])
    assert (packed["labels"][~is_token] == -100).all()
    assert (packed["input_ids"][~is_token] == PAD).all()
    cut = mlm(layout="packed", length=30, long="cut")(rows, place(6))
    assert (cut["document_ids"] >= 0).sum() == 20 + 1 + 30 + 30 + 5 + 30
    with pytest.raises(ConfigError, match="has 90 values"):
        mlm(layout="packed", length=30)(rows, place(6))


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.5}, "rate: found 1.5; 0 to 1"),
        ({"masked": 0.8, "random": 0.3}, "at most 1 together"),
        ({"words": WordBoundaries(np.zeros(3, bool))}, "words: of 3 ids; of 500"),
        ({"length": 10}, "layout='packed'"),
        ({"special_ids": range(V)}, "all ids are special"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mlm(**options)


def test_wrong_columns_and_ids(models: Path) -> None:
    for name, message in (
        ("f_tokens", "does not hold token ids"),
        ("x", "no column 'x'"),
        ("number", "not hold token"),
    ):
        with pytest.raises(ConfigError, match=message):
            MlmCollate(collate(), name, MASK, V)
    for wrong in (V, -1):
        with pytest.raises(ConfigError, match=f"vocab_size: 500, but 'words_token_ids' has id {wrong}"):
            mlm()(batch(words_token_ids=[[4, wrong]]), place(1))
    with pytest.raises(ConfigError, match="place: not given"):
        mlm()(batch(words_token_ids=[[4]]))
    with pytest.raises(ConfigError, match="of 2 rows, but the batch has 1"):
        mlm()(batch(words_token_ids=[[4]]), place(2))
    from transformers import AutoTokenizer

    clip = AutoTokenizer.from_pretrained(models / "clip")
    with pytest.raises(ConfigError, match=f"no mask token; mask_id={len(clip)}"):
        MlmCollate.of_tokenizer(collate(), "words_token_ids", clip)
    assert MlmCollate.of_tokenizer(collate(), "words_token_ids", clip, mask_id=len(clip)).mask_id == len(clip)


def test_batches_without_a_row() -> None:
    done = mlm(words=WORDS)(batch(words_token_ids=[None, []]), place(2))
    assert done["labels"].shape == (0, 0)
    assert done["left_out"].item() == 2
    packed = mlm(layout="packed", length=8)(batch(words_token_ids=[None]), place(1))
    assert packed["labels"].shape == (0, 8)


def test_a_column_with_the_name_of_a_result() -> None:
    rows = batch(words_token_ids=[[4]]).append_column("labels", batch(number=[1]).column(0))
    columns = {**collate().columns, "labels": collate().columns["number"]}
    one = MlmCollate(dataset.collate.Collate(columns), "words_token_ids", MASK, V)
    with pytest.raises(ConfigError, match="'labels' is a name that the collate function adds"):
        one(rows, place(1))
