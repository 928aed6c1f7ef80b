"""Rows by position and by id, in any order, and each row group once for a batch."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow.compute as pc
import pytest
from torch.utils.data import DataLoader, WeightedRandomSampler

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.map_reader import MapReader
from tests.dataset.loading import written
from tests.dataset.test_reader import same

ROWS = [{**written.row(i), "sample_id": f"s{(i * 37) % 500}é", "window": i % 3} for i in range(200)]
DELETED = [0, 17, 120]
KEPT = [i for i in range(200) if i not in DELETED]
COLUMNS = ["number", "photo_tokens", "photo_embedding", "label"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("map"), ROWS, deleted=DELETED)


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["number"] for row in rows]


def test_each_row(path: str) -> None:
    rows = dataset.open(path).to_map(COLUMNS)
    assert len(rows) == len(KEPT)
    for i, number in enumerate(KEPT):
        found = rows[i]
        assert list(found) == COLUMNS
        for name, value in found.items():
            same(value, ROWS[number][name])
    assert numbers(list(rows)) == KEPT
    assert rows[-1]["number"] == KEPT[-1]
    for position in (len(KEPT), -len(KEPT) - 1):
        with pytest.raises(IndexError, match=f"row {position} of 197"):
            rows[position]


def test_by_id(path: str) -> None:
    rows = dataset.open(path).to_map(["number"])
    for number in (1, 99, 199, 50):
        assert rows[ROWS[number]["sample_id"], ROWS[number]["window"]]["number"] == number
    for key in ((ROWS[0]["sample_id"], 0), (ROWS[1]["sample_id"], 5), ("", 0), ("zzz", 0)):
        with pytest.raises(KeyError):
            rows[key]
    assert rows.position(ROWS[1]["sample_id"], 1) == 0


def test_several_rows_in_any_order_with_repetitions(path: str) -> None:
    rows = dataset.open(path).to_map(["number"])
    wanted = [150, 3, 3, 196, 0, 151, 2]
    keys = [*wanted[:5], *((ROWS[KEPT[i]]["sample_id"], ROWS[KEPT[i]]["window"]) for i in wanted[5:])]
    assert numbers(rows.__getitems__(keys)) == [KEPT[i] for i in wanted]
    assert rows.read(wanted)["number"].to_pylist() == [KEPT[i] for i in wanted]
    assert rows.__getitems__([]) == []
    once = dataset.open(path).to_map(["number"])
    once.read([5, 100, 6, 101, 7])
    assert once.decoded_groups == 2


def test_a_filter(path: str) -> None:
    rows = dataset.open(path).to_map(["number"], pc.field("score") > 20)
    assert numbers(list(rows)) == [i for i in KEPT if i > 160]
    assert rows[ROWS[170]["sample_id"], ROWS[170]["window"]]["number"] == 170
    with pytest.raises(KeyError):
        rows[ROWS[5]["sample_id"], ROWS[5]["window"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers(path: str, workers: int) -> None:
    data = dataset.open(path)
    sampler = WeightedRandomSampler([float(i % 2) for i in KEPT], 60)
    loader: DataLoader[Any] = DataLoader(
        data.to_map(COLUMNS),  # type: ignore[arg-type]
        batch_size=8,
        sampler=sampler,
        collate_fn=data.collate,
        num_workers=workers,
    )
    seen = []
    for batch in loader:
        for i, number in enumerate(batch["number"].tolist()):
            seen.append(number)
            assert batch["photo_tokens"][i][batch["photo_tokens_mask"][i]].tolist() == (
                ROWS[number]["photo_tokens"] or []
            )
    assert len(seen) == 60
    assert all(number % 2 for number in seen)


def test_the_cache_is_limited(path: str) -> None:
    data = dataset.open(path)
    one = data.to_map(["number"])
    for position in (0, 20, 0, 20, 0):
        one[position]
    assert one.decoded_groups == 2
    group_bytes = next(iter(one._open.values())).bytes
    small = data.to_map(["number"], max_open_bytes=group_bytes)
    for position in (0, 20, 0, 20, 0, 1, 2):
        small[position]
    assert small.decoded_groups == 5
    with pytest.raises(ConfigError, match="max_open_bytes: 8, but a row group takes"):
        data.to_map(["number"], max_open_bytes=8)[0]


def test_a_copy_has_no_open_groups(path: str) -> None:
    rows = dataset.open(path).to_map(["number"])
    assert rows[5]["number"] == KEPT[5]
    copy: MapReader = pickle.loads(pickle.dumps(rows))
    assert not copy._open
    assert copy[5]["number"] == KEPT[5]


def test_workers_do_not_share_open_files(path: str) -> None:
    """A row was read before the workers are forked."""
    rows = dataset.open(path).to_map(["number"])
    assert rows[0]["number"] == KEPT[0]
    loader: DataLoader[Any] = DataLoader(rows, batch_size=4, num_workers=4, collate_fn=numbers)  # type: ignore[arg-type]
    assert [number for batch in loader for number in batch] == KEPT


def test_a_batch_of_all_groups_is_within_the_limit(path: str) -> None:
    data = dataset.open(path)
    one = data.to_map(["number"])
    one.read(range(len(KEPT)))
    limit = max(group.bytes for group in one._open.values())
    small = data.to_map(["number"], max_open_bytes=limit)
    assert small.read(range(len(KEPT)))["number"].to_pylist() == KEPT
    assert sum(group.bytes for group in small._open.values()) <= limit
