"""Labels are joined by sample id and window, and rows without one are left out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import labels as labels_module
from pipeline.dataset.loading.sequence import Source
from tests.dataset.loading import written

ROWS = [{**written.row(i), "sample_id": f"s{i // 2}", "window": i % 2} for i in range(200)]
DELETED = [3, 50]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("labels"), ROWS, deleted=DELETED)


def read(path: str, labels: pa.Table, **options: Any) -> list[dict[str, Any]]:
    options = {"batch_size": 16, "shuffle": True, "collate": pa.RecordBatch.to_pylist, **options}
    batches = dataset.open(path).to_torch(["number"], labels=labels, **options)
    return [row for batch in batches for row in batch]


def test_by_sample_and_window(path: str) -> None:
    """In another order than the rows, with ids that no row has."""
    some = list(range(199, -1, -3))
    labels = pa.table(
        {
            "class": [f"c{i}" for i in some] + ["none"],
            "window": pa.array([ROWS[i]["window"] for i in some] + [7], pa.int64()),
            "sample_id": [ROWS[i]["sample_id"] for i in some] + ["s1"],
        }
    )
    found = read(path, labels)
    expected = [{"number": i, "class": f"c{i}"} for i in sorted(some) if i not in DELETED]
    assert sorted(found, key=lambda row: int(row["number"])) == expected
    assert found != expected
    assert read(path, labels, shuffle=False) == expected


def test_by_sample(path: str) -> None:
    """All windows of a sample have its label, and a label may be null."""
    labels = pa.table({"sample_id": ["s4", "s25", "s1"], "class": pa.array([1, 2, None], pa.int32())})
    assert read(path, labels, shuffle=False) == [
        {"number": 2, "class": None},
        {"number": 8, "class": 1},
        {"number": 9, "class": 1},
        {"number": 51, "class": 2},
    ]


def test_with_a_filter(path: str) -> None:
    labels = pa.table({"sample_id": [f"s{i}" for i in range(100)], "class": range(100)})
    found = read(path, labels, filter=pc.field("photo_embedding").is_valid() & (pc.field("number") < 30))
    assert sorted((row["number"], row["class"]) for row in found) == [
        (i, i // 2) for i in range(30) if i % 3 and i not in DELETED
    ]


def test_tensors(path: str) -> None:
    labels = pa.table({"sample_id": ["s4", "s25"], "class": [1, 2], "name": ["a", "b"]})
    (batch,) = dataset.open(path).to_torch(["number"], batch_size=16, labels=labels)
    assert batch["class"].tolist() == [1, 1, 2]
    assert batch["class"].dtype == torch.int64
    assert batch["name"] == ["a", "a", "b"]


def test_no_row_has_a_label(path: str) -> None:
    assert read(path, pa.table({"sample_id": ["x"], "class": [1]})) == []


def test_a_state_is_of_these_labels(path: str) -> None:
    labels = pa.table({"sample_id": [f"s{i}" for i in range(100)], "class": range(100)})
    options: dict[str, Any] = {"batch_size": 16, "shuffle": True}
    data = dataset.open(path)
    one: Any = data.to_torch(["number"], labels=labels, **options)
    other: Any = data.to_torch(["number"], labels=labels.slice(5), **options)
    with pytest.raises(ConfigError, match="when other rows"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"class": [1]}, "labels: no column 'sample_id'"),
        ({"sample_id": [1], "class": [1]}, "labels: column 'sample_id' of int64; one of type string"),
        ({"sample_id": ["a"], "window": ["0"], "class": [1]}, "labels: column 'window' of string; one of type int"),
        (
            {"sample_id": ["a", "b"], "window": [0, 1 << 31], "class": [1, 2]},
            f"labels: window {1 << 31}; -{1 << 31} to",
        ),
        ({"sample_id": ["a"], "window": [-(1 << 31) - 1], "class": [1]}, f"labels: window -{(1 << 31) + 1}; "),
        ({"sample_id": ["a", None], "class": [1, 2]}, "labels: 1 nulls in column 'sample_id'"),
        ({"sample_id": ["a", "b", "a"], "class": [1, 2, 3]}, "labels: 1 rows with the sample_id of others"),
        ({"sample_id": ["a"], "number": [1]}, "labels: column 'number' is there twice"),
    ],
)
def test_wrong_tables(path: str, labels: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(path, pa.table(labels))


def test_windows_of_64_bits_that_fit(path: str) -> None:
    labels = pa.table({"sample_id": ["s4", "s4"], "window": pa.array([1, (1 << 31) - 1], pa.uint64()), "class": [5, 6]})
    assert read(path, labels) == [{"number": 9, "class": 5}]


def test_each_shard_is_opened_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = labels_module.open_shard

    def count(root: str, shard: Any) -> Any:
        opened.append(shard.path)
        return original(root, shard)

    monkeypatch.setattr(labels_module, "open_shard", count)
    data = dataset.open(path)
    labels = pa.table({"sample_id": [f"s{i}" for i in range(100)], "class": range(100)})
    index = labels_module.join_labels(data, data.index(["number"]), labels)
    assert len(index) == 15
    assert sorted(opened) == sorted(shard.path for shard in data.shards)


def test_bytes_of_groups_with_labels(path: str) -> None:
    """At least those that the decoded rows take with their labels, and with both copies while they are decoded."""
    labels = pa.table({"sample_id": [f"s{i}" for i in range(100)], "class": range(100), "name": ["x" * 100] * 100})
    data = dataset.open(path)
    source = Source(data, ("number",), labels=labels)
    without = data.index(["number"])
    for number in range(len(source.index)):
        group = source.reader().read(number)
        assert group.count == source.index.sizes[number]
        true = group.bytes + 8 * group.count
        assert true <= source.index.bytes[number] <= 1.2 * true + 1000
        assert source.index.decoding_bytes[number] >= true + 8 * without.stored[number]
