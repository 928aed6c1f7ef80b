"""Masks over grids: exact numbers, tubes and squares by hand, and blocks against transformers' generator of BEiT's."""

from __future__ import annotations

import pickle
import random
from math import comb
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.training import MimCollate, Place
from tests.training.batches import alike, batch, collate, fits, grids, is_near, place


def masks(one: MimCollate, rows: Any, at: Place | None = None) -> torch.Tensor:
    found: torch.Tensor = one(rows, at or place(len(rows)))["masked"]
    return found


def mim(ratio: float, **options: Any) -> MimCollate:
    return MimCollate(collate(), "f", ratio, **options)


def test_the_batch_by_hand() -> None:
    rows = grids((1, 2, 3), None, (2, 1, 2)).append_column("number", batch(number=[0, 1, 2]).column(0))
    done = mim(0.5)(rows, place(3))
    assert done["f_tokens"].shape == (2, 6, 2)
    assert done["f_tokens_mask"].tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert done["f_grid"].tolist() == [[1, 2, 3], [2, 1, 2]]
    assert done["number"].tolist() == [0, 2]
    assert done["left_out"].item() == 1
    assert done["masked"].dtype == torch.bool
    assert done["masked"].sum(dim=1).tolist() == [3, 2]
    assert not done["masked"][1, 4:].any()


# -- random ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.75, 0.6, 0.9, 0.1, 0.15])
def test_as_many_tokens_as_in_mae(ratio: float) -> None:
    """MAE keeps ``int(n * (1 - ratio))`` tokens, of which rounding errors are taken here: ``n - that``."""
    shapes = [(1, 14, 14), (1, 3, 3), (4, 7, 5), (1, 1, 1), (16, 1, 1)]
    found = masks(mim(ratio), grids(*shapes)).sum(dim=1).tolist()
    for shape, count in zip(shapes, found, strict=True):
        n = int(np.prod(shape))
        assert count == min(n - int(n * (1 - ratio) + 1e-6), n - 1), (shape, ratio)


@pytest.mark.slow
def test_as_many_tokens_as_in_transformers() -> None:
    from transformers import ViTMAEConfig
    from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings

    config = ViTMAEConfig(image_size=224, patch_size=16, hidden_size=8, num_attention_heads=1)
    _, theirs, _ = ViTMAEEmbeddings(config).random_masking(torch.zeros(2, 196, 8))
    ours = masks(mim(config.mask_ratio), grids((1, 14, 14), copies=2))
    assert ours.sum(dim=1).tolist() == theirs.sum(dim=1).int().tolist() == [147, 147]


def test_visible_tokens_are_a_batch_without_padding() -> None:
    """And are those of each row, in order."""
    rows = grids((2, 4, 4), copies=5)
    done = mim(0.75)(rows, place(5))
    visible = done["f_tokens"][~done["masked"]].reshape(5, 8, 2)[:, :, 0]
    for i in range(5):
        assert visible[i].tolist() == torch.flatten((~done["masked"][i]).nonzero()).tolist()


def test_every_token_and_every_pair_is_masked_as_often() -> None:
    rows = 20_000
    found = masks(mim(0.5), grids((1, 2, 3), copies=rows)).numpy()
    assert (found.sum(axis=1) == 3).all()
    sets = np.bincount(found @ (1 << np.arange(6)), minlength=64)
    assert (sets > 0).sum() == comb(6, 3)
    assert fits(sets[sets > 0], np.ones(comb(6, 3)))


def test_squares_of_simmim_by_hand() -> None:
    """Squares of 2 x 2 tokens, of which those at the edges are smaller; each frame has its own."""
    found = masks(mim(0.5, unit=2), grids((2, 4, 5), copies=300)).numpy().reshape(300, 2, 4, 5)
    for top, left in ((0, 0), (0, 2), (2, 0), (2, 2), (0, 4), (2, 4)):
        square = found[:, :, top : top + 2, left : left + 2].reshape(300, 2, -1)
        assert (square.all(axis=2) == square.any(axis=2)).all()
    assert (found[:, :, ::2, ::2].reshape(300, -1).sum(axis=1) == 6).all()
    assert (found[:, 0] != found[:, 1]).any()


@pytest.mark.parametrize(("size", "unit", "ratio"), [(192, 32, 0.6), (224, 32, 0.6), (192, 16, 0.4)])
def test_as_many_squares_as_in_simmim(size: int, unit: int, ratio: float) -> None:
    """SimMIM masks ``ceil(ratio * squares)`` squares of ``unit`` pixels; a token is 16 pixels."""
    side, tokens = unit // 16, size // 16
    found = masks(mim(ratio, unit=side), grids((1, tokens, tokens), copies=3)).sum(dim=1)
    assert found.tolist() == [int(np.ceil((size // unit) ** 2 * ratio)) * side**2] * 3


# -- tubes -----------------------------------------------------------------------------------------


def test_tubes_are_the_same_in_all_frames() -> None:
    found = masks(mim(0.9, shape="tube"), grids((8, 14, 14), copies=50)).numpy().reshape(50, 8, 196)
    assert (found == found[:, :1]).all()
    assert (found[:, 0].sum(axis=1) == 176).all(), "VideoMAE masks int(0.9 * 196) places"
    rows = 20_000
    small = masks(mim(0.5, shape="tube"), grids((2, 2, 2), copies=rows)).numpy()[:, :4]
    sets = np.bincount(small @ (1 << np.arange(4)), minlength=16)
    assert fits(sets[sets > 0], np.ones(6))


@pytest.mark.parametrize("ratio", [0.9, 0.75, 0.95, 0.1])
@pytest.mark.parametrize("shape", [(8, 14, 14), (4, 2, 2), (1, 3, 3), (2, 10, 7)])
def test_as_many_tubes_as_in_videomae(ratio: float, shape: tuple[int, int, int]) -> None:
    places = shape[1] * shape[2]
    expected = min(int(ratio * places + 1e-6), places - 1) * shape[0]
    assert masks(mim(ratio, shape="tube"), grids(shape, copies=2)).sum(dim=1).tolist() == [expected] * 2


def test_tubes_of_squares() -> None:
    found = masks(mim(0.5, shape="tube", unit=2), grids((3, 4, 4), copies=20)).numpy().reshape(20, 3, 2, 2, 2, 2)
    assert (found == found[:, :1, :, :1, :, :1]).all()
    assert (found.reshape(20, -1).sum(axis=1) == 24).all()


# -- blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "count", "least"),
    [((14, 14), 75, 16), ((14, 14), 75, 4), ((9, 14), 50, 8), ((5, 5), 10, 4), ((3, 8), 12, 4)],
)
def test_blocks_against_transformers(shape: tuple[int, int], count: int, least: int) -> None:
    """FLAVA's generator is that of BEiT: as many masked tokens, as often at each place, and as contiguous."""
    from transformers.models.flava.image_processing_pil_flava import FlavaMaskingGenerator

    rows = 1000
    generator = FlavaMaskingGenerator(shape, count, mask_group_min_patches=least)
    random.seed(0)
    theirs = np.stack([np.asarray(generator()) for _ in range(rows)]) > 0
    one = mim(count / (shape[0] * shape[1]), shape="block", min_block=least)
    ours = masks(one, grids((1, *shape), copies=rows)).numpy().reshape(rows, *shape)
    assert ours.sum(axis=(1, 2)).max() <= count
    assert alike(*(np.bincount(found.sum(axis=(1, 2)), minlength=count + 1) for found in (ours, theirs)))
    for found in (ours, theirs):
        assert is_near(found.sum(), found.size, (ours.sum() + theirs.sum()) / 2 / found.size)
    deviation = (ours.sum(axis=0) - theirs.sum(axis=0)) / np.sqrt(
        rows * 2 * ours.mean(axis=0) * (1 - ours.mean(axis=0))
    )
    assert np.abs(deviation).max() < 4.5
    assert alike(*(_edges(found) for found in (ours, theirs)))


def _edges(found: np.ndarray) -> np.ndarray:
    """Returns how often rows have so many borders between masked and visible tokens: few, if masks are blocks."""
    edges = (found[:, 1:] != found[:, :-1]).sum(axis=(1, 2)) + (found[:, :, 1:] != found[:, :, :-1]).sum(axis=(1, 2))
    return np.bincount(edges // 4, minlength=400)


def test_a_first_block_by_hand() -> None:
    """With 12 tokens to mask, at least 12 in a block, and side ratios from 0.3 to 3.3: 3 x 4 or 2 x 6, if it fits."""
    found = masks(mim(12 / 64, shape="block", min_block=12), grids((1, 8, 8), copies=2000)).numpy().reshape(-1, 8, 8)
    boxes = np.stack([found.any(axis=2), found.any(axis=1)], axis=1)
    sides = 8 - boxes.argmax(axis=2) - boxes[:, :, ::-1].argmax(axis=2)
    is_rectangle = (sides.prod(axis=1) == 12) & (found.sum(axis=(1, 2)) == 12)
    assert is_rectangle.mean() > 0.4
    assert {*map(tuple, sides[is_rectangle].tolist())} == {(3, 4), (4, 3), (2, 6), (6, 2)}
    wide = (sides[is_rectangle] == [2, 6]).all(axis=1).sum()
    assert is_near(wide, wide + (sides[is_rectangle] == [6, 2]).all(axis=1).sum(), 0.5)


def test_as_many_tokens_of_blocks_as_the_nearest_number() -> None:
    counts = [masks(mim(ratio, shape="block", min_block=1), grids((1, 5, 5), copies=300)) for ratio in (0.35, 0.37)]
    assert [int(found.sum(dim=1).max()) for found in counts] == [9, 9]


def test_blocks_are_the_same_in_all_frames() -> None:
    found = masks(mim(0.4, shape="block"), grids((4, 7, 9), (1, 14, 14), copies=10))
    video = found[::2, : 4 * 63].reshape(10, 4, 63)
    assert (video == video[:, :1]).all()
    assert 10 < video[:, 0].sum(dim=1).float().mean() <= 25
    assert found[1::2, :196].sum(dim=1).float().mean() > 60
    assert not found[1::2, 196:].any()


# -- all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"unit": 2}, {"shape": "tube"}, {"shape": "block", "min_block": 4}])
def test_the_masks_of_a_row_do_not_depend_on_the_batch(options: dict[str, Any]) -> None:
    shapes = [(1, 7, 9), (3, 4, 5), (1, 14, 14), (2, 6, 6)]
    one = mim(0.5, seed=3, **options)
    whole = masks(one, grids(*shapes), Place(2, np.arange(40, 44)))
    for i in (3, 0, 2):
        alone = masks(one, grids(shapes[i]), Place(2, np.array([40 + i])))
        assert torch.equal(alone[0], whole[i, : alone.shape[1]])
        assert not whole[i, alone.shape[1] :].any()
    for other, at in (
        (mim(0.5, **options), Place(2, np.arange(40, 44))),
        (one, place(4, 3, 40)),
        (one, place(4, 2, 4)),
    ):
        assert not torch.equal(masks(other, grids(*shapes), at), whole)


@pytest.mark.parametrize("shape", ["random", "tube", "block"])
def test_batches_without_a_row(shape: Any) -> None:
    done = mim(0.5, shape=shape)(grids(None, None), place(2))
    assert done["masked"].shape == (0, 0)
    assert done["left_out"].item() == 2


def test_it_is_picklable_and_takes_any_form() -> None:
    one = pickle.loads(pickle.dumps(mim(0.5, seed=9)))
    rows = grids((1, 3, 3), (2, 2, 2))
    columns = {name: one.collate.columns[name] for name in rows.schema.names}
    as_rows = [{name: columns[name].value(row[name]) for name in row} for row in rows.to_pylist()]
    expected = masks(one, rows)
    for form in (as_rows, pa.Table.from_batches([rows])):
        assert torch.equal(masks(one, form), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "ratio: found 0; between 0 and 1"),
        ({"ratio": 1}, "ratio"),
        ({"ratio": 0.5, "unit": 0}, "unit: found 0"),
        ({"ratio": 0.5, "unit": 2, "shape": "block"}, "1 for 'block'"),
        ({"ratio": 0.5, "shape": "blocks"}, "one of: random, tube, block"),
        ({"ratio": 0.5, "min_block": 0}, "min_block"),
        ({"ratio": 0.5, "min_aspect": 2}, "min_aspect: found 2; over 0, up to 1"),
        ({"ratio": 0.5, "feature": "a"}, "no column 'a_tokens'; one of: words_token_ids, f_tokens"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MimCollate(collate(), options.pop("feature", "f"), **options)


def test_wrong_batches() -> None:
    with pytest.raises(ConfigError, match=r"a row has 2 values in 'f_tokens', and grid \(1, 3, 1\); restore"):
        masks(mim(0.5), batch(f_tokens=[[[0, 0]] * 2], f_grid=[[1, 3, 1]]))
    with pytest.raises(ConfigError, match="a frame of 'f' has one token; random"):
        masks(mim(0.5, shape="tube"), grids((6, 1, 1)))
    with pytest.raises(ConfigError, match="place: not given"):
        mim(0.5)(grids((1, 2, 2)))
    with pytest.raises(ConfigError, match="'f_grid' was not read"):
        masks(mim(0.5), grids((1, 2, 2)).select(["f_tokens"]))
