"""The spans of wav2vec 2.0: by hand, by the paper's figures, and against transformers' function."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.training import MaskedAudioCollate, Place
from tests.training.batches import alike, batch, collate, frames, is_near, place


def audio(**options: Any) -> MaskedAudioCollate:
    return MaskedAudioCollate(collate(), "f", **options)


def masks(one: MaskedAudioCollate, lengths: list[int], at: Place | None = None) -> np.ndarray:
    found: np.ndarray = one(frames(lengths), at or place(len(lengths)))["masked"].numpy()
    return found


def runs(found: np.ndarray) -> np.ndarray:
    """Returns the lengths of the runs of masked frames."""
    edges = np.diff(np.pad(found.astype(int), ((0, 0), (1, 1))), axis=1)
    return np.nonzero(edges.reshape(-1) == -1)[0] - np.nonzero(edges.reshape(-1) == 1)[0]


def test_the_batch_by_hand() -> None:
    rows = batch(f_tokens=[[[i, 0] for i in range(4)], None, [], [[0, 0]] * 2], number=range(4))
    done = audio(span=2, start_rate=0.5, min_spans=1)(rows, place(4))
    assert done["f_tokens"].shape == (2, 4, 2)
    assert done["f_tokens_mask"].tolist() == [[True] * 4, [True, True, False, False]]
    assert done["masked"][1].tolist() == [True, True, False, False]
    assert done["masked"].dtype == torch.bool
    assert done["number"].tolist() == [0, 3]
    assert done["left_out"].item() == 2


def test_one_span_is_at_each_place_as_often() -> None:
    found = masks(audio(start_rate=0, min_spans=1, span=4), [10] * 7000)
    assert (found.sum(axis=1) == 4).all()
    assert (runs(found) == 4).all()
    first = np.bincount(found.argmax(axis=1), minlength=10)
    assert not first[7:].any()
    assert all(is_near(count, 7000, 1 / 7) for count in first[:7])


def test_the_number_of_spans() -> None:
    """``0.065 n``, rounded at random: spans of one frame are counted exactly."""
    found = masks(audio(span=1), [100] * 4000).sum(axis=1)
    assert set(found.tolist()) == {6, 7}
    assert is_near((found == 7).sum(), 4000, 0.5)
    assert set(masks(audio(span=1), [200] * 50).sum(axis=1).tolist()) == {13}


@pytest.mark.parametrize(
    ("length", "spans"), [(1, 0), (9, 0), (10, 1), (11, 1), (19, 1), (20, 2), (21, 2), (29, 2), (1000, 65)]
)
def test_short_rows_have_as_many_spans_as_fit(length: int, spans: int) -> None:
    found = masks(audio(), [length, 40])[0]
    assert 10 * (spans > 0) + (spans > 1) <= found.sum() <= 10 * spans
    assert not found[length:].any()


def test_the_figures_of_the_paper() -> None:
    """Section 4.2: "approximately 49 % of all time steps to be masked with a mean span length of 14.7" in 15 s."""
    found = masks(audio(), [750] * 500)
    assert found.mean() == pytest.approx(0.49, abs=0.01)
    assert runs(found).mean() == pytest.approx(14.7, abs=0.3)
    assert runs(found).min() == 10


@pytest.mark.parametrize(("length", "least"), [pytest.param(300, 0, marks=pytest.mark.slow), (60, 2), (25, 2)])
def test_against_transformers(length: int, least: int) -> None:
    """As many masked frames, in runs of the same lengths, as often at each place."""
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    rows = 1500
    np.random.seed(0)
    theirs = np.concatenate([_compute_mask_indices((1, length), 0.65, 10, min_masks=least) for _ in range(rows)])
    ours = masks(audio(min_spans=least), [length] * rows)
    assert alike(*(np.bincount(found.sum(axis=1), minlength=length) for found in (ours, theirs)))
    assert alike(*(np.bincount(runs(found), minlength=length + 1) for found in (ours, theirs)))
    share = np.clip((ours.mean(axis=0) + theirs.mean(axis=0)) / 2, 1 / rows, 1 - 1 / rows)
    deviation = (ours.sum(axis=0) - theirs.sum(axis=0)) / np.sqrt(2 * rows * share * (1 - share))
    assert np.abs(deviation).max() < 4.5


def test_the_masks_of_a_row_do_not_depend_on_the_batch() -> None:
    lengths = [120, 33, 8, 400]
    one = audio(seed=3)
    whole = masks(one, lengths, Place(2, np.arange(40, 44)))
    for i in (3, 1, 2):
        alone = masks(one, [lengths[i]], Place(2, np.array([40 + i])))
        assert np.array_equal(alone[0], whole[i, : lengths[i]])
    for other, at in ((audio(), Place(2, np.arange(40, 44))), (one, place(4, 3, 40)), (one, place(4, 2, 4))):
        assert not np.array_equal(masks(other, lengths, at), whole)
    assert pickle.loads(pickle.dumps(one)) == one


def test_token_ids_of_a_codec() -> None:
    one = MaskedAudioCollate(collate(["words_token_ids"]), "words", span=2)
    done = one(batch(words_token_ids=[list(range(50))]), place(1))
    assert done["masked"].shape == done["words_token_ids"].shape == (1, 50)
    assert done["masked"].sum() > 2


def test_batches_without_a_row() -> None:
    assert audio()(batch(f_tokens=[None]), place(1))["masked"].shape == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_rate": 1.1}, "start_rate: found 1.1; 0 to 1"),
        ({"span": 0}, "span: found 0"),
        ({"min_spans": -1}, "min_spans: found -1"),
        ({"feature": "a"}, "no column 'a_tokens'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskedAudioCollate(collate(), options.pop("feature", "f"), **options)


def test_without_a_place() -> None:
    with pytest.raises(ConfigError, match="place: not given"):
        audio()(frames([30]))
