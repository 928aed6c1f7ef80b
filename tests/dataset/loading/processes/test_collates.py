"""Batches that worker processes collate equal those of the trainer's process, and the rows that pyarrow reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import dataset
from pipeline.dataset.collate import Collate
from tests.dataset.loading import written
from tests.dataset.loading.processes.cases import COLUMNS, Row, check_equal, plain_rows
from tests.dataset.loading.test_torch_reader import BATCH

ROWS = [written.row(i) for i in range(200)]
LENGTH = 12
COLLATES: dict[str, Callable[[Collate], Any]] = {
    "padded": lambda collate: collate,
    "packed": lambda collate: collate.packed(LENGTH),
    "packed_in_one_sequence": lambda collate: collate.packed(),
    "jagged": lambda collate: collate.jagged(),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("collates"), ROWS, deleted=[0, 5, *range(50, 60)])


def reader(path: str, name: str, **options: Any) -> Any:
    data = dataset.open(path)
    options = {"batch_size": BATCH, "shuffle": True, "collate": COLLATES[name](data.collate), **options}
    return data.to_torch(COLUMNS, **options)


def documents(name: str, column: str, batch: dict[str, Any]) -> Iterator[Any]:
    """Yields the values of each row of a batch."""
    values, valid = batch[column], batch[f"{column}_valid"]
    if name == "padded":
        yield from (row[mask].tolist() for row, mask in zip(values, batch[f"{column}_mask"], strict=True))
    elif name == "jagged":
        yield from (row.tolist() for row in values.unbind())
    else:
        flat = values.reshape(-1, *values.shape[2 if name == "packed" else 1 :])
        ids = batch[f"{column}_document_ids"].reshape(-1)
        yield from (flat[ids == i].tolist() for i in range(len(valid)))


def check_values(name: str, batch: dict[str, Any], rows: dict[int, Row]) -> None:
    expected = [rows[number] for number in batch["number"].tolist()]
    assert batch["label"] == [row["label"] for row in expected]
    for column in ("photo_tokens", "words_token_ids"):
        found = list(documents(name, column, batch))
        assert found == [row[column] or [] for row in expected]
        assert batch[f"{column}_valid"].tolist() == [row[column] is not None for row in expected]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("packed", "fork"),
        ("jagged", "fork"),
        *(
            pytest.param(name, method, marks=pytest.mark.slow)
            for name in COLLATES
            for method in ("fork", "spawn")
            if (name, method) not in (("packed", "fork"), ("jagged", "fork"))
        ),
    ],
)
def test_workers_make_the_same_batches(path: str, name: str, method: str) -> None:
    rows = {row["number"]: row for row in plain_rows(path)}
    expected = list(reader(path, name))
    found = list(reader(path, name).loader(2, multiprocessing_context=method))
    assert len(found) == len(expected) == 12
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other)
        check_values(name, one, rows)
    assert sorted(number for batch in found for number in batch["number"].tolist()) == sorted(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLATES)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_stay_as_they_are_when_later_ones_are_read(path: str, name: str, method: str) -> None:
    """They are in memory that the workers share. Two epochs of the same workers, with all batches kept."""
    loader = reader(path, name).loader(2, multiprocessing_context=method, persistent_workers=True, prefetch_factor=4)
    kept = [list(loader), list(loader)]
    for epoch, batches in enumerate(kept):
        for one, other in zip(batches, reader(path, name, epoch=epoch), strict=True):
            check_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLATES)
def test_batches_may_be_written(path: str, name: str) -> None:
    """In place, as augmentations do."""
    for batch in reader(path, name).loader(1):
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
                assert not np.any((value.values() if value.is_nested else value).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLATES)
def test_batches_without_values(tmp_path: Path, name: str) -> None:
    rows = [{**one, "photo_tokens": None, "words_token_ids": []} for one in ROWS[:20]]
    path = written.write(tmp_path, rows)
    found = list(reader(path, name).loader(2))
    assert len(found) == 2
    for one, other in zip(found, reader(path, name), strict=True):
        check_equal(one, other)
        assert list(documents(name, "words_token_ids", one)) == [[]] * len(one["number"])
        assert not one["photo_tokens_valid"].any()
        assert one["words_token_ids_valid"].all()
