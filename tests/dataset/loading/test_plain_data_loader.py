"""A plain ``DataLoader`` of torch: the epoch advances when an iteration begins, and all workers read the same one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.core.errors import ConfigError
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import DELETED, ROWS, reader


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("plain"), ROWS, deleted=DELETED)


class Epochs(dict[int, list[list[int]]]):
    """Epoch -> its batches."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __missing__(self, epoch: int) -> list[list[int]]:
        self[epoch] = list(reader(self.path, epoch=epoch))
        return self[epoch]


@pytest.fixture(scope="module")
def epochs(path: str) -> Epochs:
    return Epochs(path)


def plain(one: Any, workers: int = 2, **options: Any) -> DataLoader[Any]:
    return DataLoader(one, batch_size=None, num_workers=workers, **options)


@pytest.mark.parametrize(
    ("method", "persistent", "same_seed", "stops"),
    [
        ("fork", True, False, [1, 16, 31, None]),
        ("fork", False, True, [1, 30, None]),
        *(
            pytest.param(method, persistent, same_seed, stops, marks=pytest.mark.slow)
            for method, stops in (("fork", [1, None, 2, 15, 1, 1, 30, None, 31, None]), ("spawn", [1, None, 31]))
            for persistent in (False, True)
            for same_seed in (False, True)
        ),
    ],
)
def test_each_iteration_is_an_epoch(
    path: str, epochs: Epochs, method: str, persistent: bool, same_seed: bool, stops: list[int | None]
) -> None:
    """Iterations of which all batches are read, or the first ones only: 31 is all, without waiting for the end."""
    one = reader(path)
    loader = plain(one, persistent_workers=persistent, multiprocessing_context=method)
    for epoch, stop in enumerate(stops):
        if same_seed:
            torch.manual_seed(0)
        assert list(_first(loader, stop)) == epochs[epoch][:stop]
        assert one.epoch == epoch
    one.set_epoch(2)
    for epoch, stop in ((2, 1), (3, None)):
        if same_seed:
            torch.manual_seed(0)
        assert list(_first(loader, stop)) == epochs[epoch][:stop]


def _first(loader: DataLoader[Any], stop: int | None) -> Iterator[Any]:
    for number, batch in enumerate(loader):
        yield batch
        if number + 1 == stop:
            return


@pytest.mark.parametrize("epoch", [None, pytest.param(7, marks=pytest.mark.slow)])
def test_a_worker_that_starts_after_the_trainer_has_left(path: str, epochs: Epochs, epoch: int | None) -> None:
    """The other worker has begun the next iteration then. With and without an epoch that the trainer sets."""
    one = reader(path)
    loader = plain(one, persistent_workers=True, worker_init_fn=_start_late)
    assert next(iter(loader)) == epochs[0][0]
    if epoch is not None:
        one.set_epoch(epoch)
    assert list(loader) == epochs[epoch or 1]


def _start_late(worker: int) -> None:
    time.sleep(worker * 0.3)


def test_other_numbers_of_workers(path: str, epochs: Epochs) -> None:
    one = reader(path)
    for epoch, workers in enumerate((2, 1, 2)):
        torch.manual_seed(0)
        assert list(plain(one, workers)) == epochs[epoch]
    assert list(one) == epochs[3]
    assert list(one.loader(1)) == epochs[4]


def test_a_loaded_position_is_that_of_one_iteration(path: str, epochs: Epochs) -> None:
    first, one = reader(path, epoch=2), reader(path)
    for _, _ in zip(range(5), first, strict=False):
        pass
    one.load_state_dict(first.state_dict())
    loader = plain(one)
    one.set_epoch(2)
    assert list(loader) == epochs[2][5:]
    assert list(loader) == epochs[3]
    one.load_state_dict(first.state_dict())
    assert list(loader) == epochs[2][5:]
    one.set_epoch(2)
    assert list(loader) == epochs[2]


@pytest.mark.parametrize("stop", [1, None])
def test_the_trainer_has_no_state_of_what_it_does_not_count(path: str, epochs: Epochs, stop: int | None) -> None:
    """Also after it has left an iteration of its own, or one of a loader that counts."""
    one = reader(path)
    counting = one.loader(1)
    for read in (None, one, counting):
        if read is not None:
            next(iter(read))
            assert one.state_dict()["position"] == 1
            assert one.remaining == len(one) - 1
        assert len(list(_first(plain(one), stop))) == (stop or len(epochs[0]))
        with pytest.raises(
            ConfigError, match=r"workers of another loader.*use reader.loader\(\), or torchdata's"
        ) as error:
            one.state_dict()
        assert "\n" not in str(error.value)
        with pytest.raises(ConfigError, match="workers of another loader"):
            _ = one.remaining
        assert one.report()["lost"] == 0
    assert len(list(counting)) == len(one) == one.remaining
    assert one.state_dict()["position"] == 0


def test_a_loader_that_was_left_has_a_state(path: str) -> None:
    one = reader(path)
    for loader in (one.loader(2, persistent_workers=True), one.loader(2)):
        for _ in range(3):
            next(iter(loader))
            assert (one.state_dict()["position"], one.remaining) == (1, len(one) - 1)
        assert len(list(loader)) == one.remaining
    one.set_epoch(3)
    assert one.state_dict()["epoch"] == 3


@pytest.mark.parametrize("persistent", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_trainer_sees_what_workers_have_lost(tmp_path: Path, persistent: bool) -> None:
    """Batches of 2 rows in chunks of 2: those of the lost group have other rows in their place."""
    path = written.write(tmp_path, ROWS[:96], shards=2)
    one = reader(path, batch_size=2, streams=2, chunk_rows=2, on_error="skip")
    assert one.report()["lost"] == 0
    shard = sorted((tmp_path / "v1" / "data").iterdir())[1]
    content = bytearray(shard.read_bytes())
    end = _end_of_first_group(shard)
    content[4:end] = bytes(end - 4)
    shard.write_bytes(bytes(content))
    loader = one.loader(2, persistent_workers=persistent)
    for _ in range(2):
        rows = [row for batch in loader for row in batch]
        assert {*rows} == {*range(96)} - {*range(48, 64)}
        assert one.report()["lost"] == one.counts.lost == 16
        assert one.counts.repeated == 16
        assert one.counts.decoded_groups >= 5
    next(iter(one))
    assert one.counts.decoded_groups <= 5  # of this process
    batches = iter(plain(one))
    next(batches)
    assert 1 <= one.counts.decoded_groups <= 10
    assert len(list(batches)) == 47
    assert one.report()["lost"] == 16
    assert len(list(one)) == 48
    assert one.report()["lost"] == 16


def _end_of_first_group(shard: Path) -> int:
    import pyarrow.parquet as pq

    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    return max((one.dictionary_page_offset or one.data_page_offset) + one.total_compressed_size for one in columns)
