"""Rows as tensors: each row exactly once over all ranks and their DataLoader workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import dataset as datasets
from pipeline.core.errors import ConfigError
from tests.dataset.reader_fixtures import ROWS, SCHEMA, D, W
from tests.dataset.test_reader import same


def test_rows_of_tensors(out: Path) -> None:
    import torch

    dataset = datasets.open(str(out))
    rows = list(dataset.to_torch())
    assert len(rows) == len(ROWS)
    for found, expected in zip(rows, ROWS, strict=True):
        assert list(found) == SCHEMA.names
        for name, value in expected.items():
            same(found[name], value)
    seven = rows[7]
    assert (seven["photo_tokens"].dtype, tuple(seven["photo_tokens"].shape)) == (torch.float16, (4, W))
    assert (seven["photo_embedding"].dtype, tuple(seven["photo_embedding"].shape)) == (torch.float32, (D,))
    assert seven["caption_token_ids"].dtype == seven["photo_grid"].dtype == torch.int32
    assert rows[5]["sound_times"].dtype == torch.float64
    assert tuple(rows[0]["sound_tokens"].shape) == (0, W)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 29, 40])
def test_ranks_share_the_rows_exactly(out: Path, world_size: int) -> None:
    dataset = datasets.open(str(out))
    shares = [
        [one["sample_id"] for one in dataset.to_torch(["sample_id"], rank, world_size)] for rank in range(world_size)
    ]
    assert [name for share in shares for name in share] == [one["sample_id"] for one in ROWS]
    assert {len(share) for share in shares} <= {29 // world_size, -(-29 // world_size)}
    with pytest.raises(ConfigError, match="rank"):
        dataset.to_torch(["sample_id"], world_size, world_size)


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_data_loader_workers_share_a_rank(out: Path, start_method: str) -> None:
    from torch.utils.data import DataLoader

    dataset = datasets.open(str(out))
    columns = ["sample_id", "photo_embedding", "photo_tokens", "sound_tokens"]
    seen: list[str] = []
    for rank in range(2):
        loader = DataLoader(
            dataset.to_torch(columns, rank, 2),
            batch_size=4,
            num_workers=2,
            collate_fn=dataset.collate,
            multiprocessing_context=start_method,
        )
        for batch in loader:
            for i, name in enumerate(batch["sample_id"]):
                seen.append(name)
                expected = ROWS[int(name[1:])]
                valid = bool(batch["photo_tokens_valid"][i])
                assert valid == (expected["photo_tokens"] is not None)
                assert (batch["photo_tokens"][i][batch["photo_tokens_mask"][i]].tolist() or None) == (
                    expected["photo_tokens"]
                )
    assert sorted(seen) == [one["sample_id"] for one in ROWS]


def test_rows_through_workers_without_collating(out: Path) -> None:
    from torch.utils.data import DataLoader

    dataset = datasets.open(str(out))
    found = {one["sample_id"]: one for one in DataLoader(dataset.to_torch(), batch_size=None, num_workers=2)}
    assert len(found) == len(ROWS)
    for expected in ROWS:
        for name, value in expected.items():
            same(found[expected["sample_id"]][name], value)


@pytest.mark.parametrize("batch_size", [1, 5, 29, 64])
def test_batches_of_tensors(out: Path, batch_size: int) -> None:
    dataset = datasets.open(str(out))
    batches = list(dataset.to_torch(["sample_id", "caption_embedding"], batch_size=batch_size))
    sizes = [len(batch["sample_id"]) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sum(sizes) == 29
    for batch in batches:
        assert batch["caption_embedding"].shape == (len(batch["sample_id"]), D)
        for i, name in enumerate(batch["sample_id"]):
            expected = ROWS[int(name[1:])]["caption_embedding"]
            assert batch["caption_embedding"][i].tolist() == (expected or [0.0] * D)
            assert bool(batch["caption_embedding_valid"][i]) == (expected is not None)
