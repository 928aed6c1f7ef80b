"""Worker processes read a dataset on an object store as a local copy of it, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import dataset
from tests.dataset.loading import written
from tests.dataset.loading.processes.cases import COLUMNS, Row, interleaved, plain_rows, rows_of
from tests.dataset.loading.test_torch_reader import BATCH, check_dealt

ROWS = [written.row(i) for i in range(400)]
DELETED = [0, *range(30, 41), 250, 399]
URL = "s3://corpus/out"


@pytest.fixture
def local(s3: Any, tmp_path: Path) -> str:
    """The local copy of the dataset at `URL`."""
    path = written.write(tmp_path / "out", ROWS, shards=4, group_rows=25, deleted=DELETED)
    s3.put(path, "corpus/", recursive=True)
    return path


def reader(path: str, **options: Any) -> Any:
    options = {"batch_size": BATCH, "shuffle": True, "collate": rows_of, **options}
    return dataset.open(path).to_torch(COLUMNS, **options)


def check_values(batches: list[list[Row]], path: str) -> None:
    rows = sorted((row for batch in batches for row in batch), key=lambda row: int(row["number"]))
    assert rows == plain_rows(path, COLUMNS)


@pytest.mark.slow
def test_forked_workers_before_and_after_a_resume(local: str) -> None:
    loader = reader(URL).loader(2, multiprocessing_context="fork")
    found = [batch for _, batch in zip(range(7), loader, strict=False)]
    resumed = reader(URL).loader(2, multiprocessing_context="fork")
    resumed.load_state_dict(loader.state_dict())
    found += resumed
    assert found == list(reader(local))
    check_values(found, local)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_epochs(local: str, method: str) -> None:
    """After the trainer's process itself has read from the store, and has connections and threads."""
    one = reader(URL, epoch=3)
    next(iter(one))
    one.set_epoch(3)
    loader = one.loader(2, multiprocessing_context=method, persistent_workers=True)
    for epoch in (3, 4):
        found = list(loader)
        assert found == list(reader(local, epoch=epoch))
        check_values(found, local)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fork", "spawn"), ("spawn", "fork")])
def test_a_resume_on_two_ranks(local: str, before: str, after: str) -> None:
    """Also of the local copy, for which the state is the same."""
    expected = list(reader(local))
    loader = reader(URL).loader(2, multiprocessing_context=before)
    for number, batch in zip(range(9), loader, strict=False):
        assert batch == expected[number]
    state = loader.state_dict()
    ranks = [reader(URL, rank=rank, world_size=2).loader(2, multiprocessing_context=after) for rank in range(2)]
    for one in ranks:
        one.load_state_dict(state)
    check_dealt(interleaved([list(one) for one in ranks]), expected[9:], 2)
    copy = reader(local)
    copy.load_state_dict(state)
    assert list(copy) == expected[9:]


@pytest.mark.slow
def test_mixtures_and_labels(local: str) -> None:
    """The labels are joined in the trainer's process, and passed to the workers."""
    labels = pa.table({"sample_id": [row["sample_id"] for row in ROWS[::2]], "class": range(200)})

    def mixture(path: str) -> Any:
        data = dataset.open(path)
        options: Any = {"shuffle": True, "collate": rows_of, "labels": labels, "epoch_rows": 320}
        return dataset.mix([(data, 0.7), (data, 0.3)], COLUMNS, BATCH, **options)

    found = list(mixture(URL).loader(2, multiprocessing_context="spawn"))
    assert found == list(mixture(local))
    rows = [row for batch in found for row in batch]
    assert all(row["number"] == 2 * row["class"] for row in rows)
    assert len(rows) == 320
