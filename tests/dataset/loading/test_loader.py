"""Worker processes read the same batches, and only what the trainer was given counts."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from pipeline import dataset
from pipeline.dataset.loading.loader import Loader
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import BATCH, DELETED, KEPT, ROWS, check_dealt, reader


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("loader"), ROWS, deleted=DELETED)


def loader(path: str, workers: int, options: dict[str, Any] | None = None, **of_reader: Any) -> Loader:
    return reader(path, **of_reader).loader(workers, **options or {})


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (1, 2), (1, 4), (2, 1), (3, 2)])
def test_any_number_of_workers_reads_the_same_batches(path: str, world_size: int, workers: int) -> None:
    _compare(path, world_size, workers)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"filter": pc.field("photo_embedding").is_valid()}])
def test_all_numbers_of_ranks_and_workers(path: str, world_size: int, workers: int, options: dict[str, Any]) -> None:
    _compare(path, world_size, workers, **options)


def _compare(path: str, world_size: int, workers: int, **options: Any) -> None:
    expected = list(reader(path, **options))
    ranks = [list(loader(path, workers, rank=rank, world_size=world_size, **options)) for rank in range(world_size)]
    assert len({len(one) for one in ranks}) == 1
    check_dealt([ranks[rank][i] for i in range(len(ranks[0])) for rank in range(world_size)], expected, world_size)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_advance(path: str, method: str, persistent: bool) -> None:
    one = loader(path, 2, {"persistent_workers": persistent, "multiprocessing_context": method})
    expected = [list(reader(path, epoch=epoch)) for epoch in (0, 1, 2, 7)]
    for epoch in (0, 1):
        assert one.epoch == epoch
        assert len(one) == len(expected[epoch])
        assert list(one) == expected[epoch]
    for _ in one:
        break
    one.set_epoch(7)
    assert list(one) == expected[3]
    one.set_epoch(2)
    assert list(one) == expected[2]
    assert one.epoch == 3


@pytest.mark.parametrize("workers", [0, 3])
def test_a_state_does_not_count_what_workers_read_ahead(path: str, workers: int) -> None:
    expected = list(reader(path))
    one = loader(path, workers, {"prefetch_factor": 8} if workers else {})
    for number, batch in enumerate(one):
        assert batch == expected[number]
        assert one.state_dict()["position"] == (number + 1) % len(expected)
        if number == 4:
            state = one.state_dict()
    assert one.state_dict()["epoch"] == 1
    for resumed_workers in (0, 2):
        resumed = loader(path, resumed_workers)
        resumed.load_state_dict(state)
        assert list(resumed) == expected[5:]
        assert resumed.epoch == 1


@pytest.mark.slow
def test_stops_and_resumes_on_other_ranks_and_workers(path: str) -> None:
    rng = np.random.default_rng(1)
    expected = list(reader(path))
    for _ in range(40):
        before, after = (int(one) for one in rng.integers(1, 9, 2))
        stopped = loader(path, int(rng.choice([0, 1, 2, 4])), rank=int(rng.integers(before)), world_size=before)
        stop = int(rng.integers(1, len(stopped)))
        for _, _ in zip(range(stop), stopped, strict=False):
            pass
        ranks = [loader(path, int(rng.choice([0, 1, 2])), rank=rank, world_size=after) for rank in range(after)]
        for one in ranks:
            one.load_state_dict(stopped.state_dict())
        read = [list(one) for one in ranks]
        found = [read[rank][number] for number in range(len(read[0])) for rank in range(after)]
        check_dealt(found, expected[stop * before :], after)


def test_pinned_and_collated_batches(path: str) -> None:
    data = dataset.open(path)
    read: Any = data.to_torch(["number", "photo_tokens"], batch_size=BATCH, shuffle=True)
    batches = list(read.loader(2))
    assert sorted(torch.cat([batch["number"] for batch in batches]).tolist()) == KEPT
    for batch in batches:
        for i, number in enumerate(batch["number"].tolist()):
            found = batch["photo_tokens"][i][batch["photo_tokens_mask"][i]]
            assert found.tolist() == (ROWS[number]["photo_tokens"] or [])


def test_arguments_that_the_reader_decides(path: str) -> None:
    for name in ("shuffle", "in_order", "collate_fn"):
        with pytest.raises(TypeError, match=f"{name} is no option of a loader: the reader decides it"):
            loader(path, 0, {name: True})


def test_a_worker_that_dies_is_an_error(path: str) -> None:
    import os

    def die(batch: Any) -> Any:
        os._exit(3)

    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader(path, 1, collate=die))


def test_a_warning_if_row_groups_are_decoded_several_times(path: str) -> None:
    with pytest.warns(
        UserWarning, match=r"decoded in 3 processes, since streams=4 is no multiple of 6 .* streams=6 avoids"
    ):
        loader(path, 3, streams=4, chunk_rows=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loader(path, 1, streams=4, chunk_rows=8)
        loader(path, 2, streams=4, chunk_rows=8)
        loader(path, 2, shuffle=False)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_copy_of_a_reader_advances_too(path: str, persistent: bool) -> None:
    copy = pickle.loads(pickle.dumps(reader(path)))
    one = copy.loader(2, persistent_workers=persistent)
    assert [list(one), list(one)] == [list(reader(path)), list(reader(path, epoch=1))]


@pytest.mark.parametrize("by_loader", [True, False])
def test_persistent_workers_follow_a_state_of_another_snapshot(tmp_path: Path, by_loader: bool) -> None:
    written.write(tmp_path, ROWS)
    state, expected = reader(str(tmp_path)).state_dict(), list(reader(str(tmp_path)))
    written.write(tmp_path, ROWS[:90], snapshot=2)
    one = loader(str(tmp_path), 2, {"persistent_workers": True})
    assert len(list(one)) == 6
    (one if by_loader else one.reader).load_state_dict(state)
    assert list(one) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_collate_function(path: str, workers: int) -> None:
    def arrays(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        return {"number": batch["number"].to_numpy()}

    one = reader(path, collate=arrays)
    for found, expected in zip(one.loader(workers), reader(path, collate=arrays), strict=True):
        assert type(found["number"]) is np.ndarray
        assert found["number"].tolist() == expected["number"].tolist()
