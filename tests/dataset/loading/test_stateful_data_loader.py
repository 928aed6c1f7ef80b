"""torchdata's loader resumes a reader in the middle of an epoch, with the same numbers of ranks and workers."""

from __future__ import annotations

from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import DELETED, ROWS, check_dealt, reader


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("stateful"), ROWS, deleted=DELETED)


def loader(path: str, workers: int, rank: int = 0, world_size: int = 1, epoch: int = 0) -> Any:
    one = reader(path, rank=rank, world_size=world_size, epoch=epoch)
    return StatefulDataLoader(one, batch_size=None, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_epochs(path: str, workers: int) -> None:
    one = loader(path, workers)
    assert [list(one), list(one)] == [list(reader(path)), list(reader(path, epoch=1))]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(
    "stop", [1, pytest.param(6, marks=pytest.mark.slow), 28, pytest.param(30, marks=pytest.mark.slow)]
)
def test_it_resumes_at_the_next_batch(path: str, workers: int, stop: int) -> None:
    """30 batches and a short one; after 28 to 30 of them some workers have ended."""
    expected = list(reader(path))
    stopped = loader(path, workers)
    iterator = iter(stopped)
    assert [next(iterator) for _ in range(stop)] == expected[:stop]
    resumed = loader(path, workers)
    resumed.load_state_dict(stopped.state_dict())
    assert list(resumed) == expected[stop:]
    assert list(resumed) == list(reader(path, epoch=1))


def test_with_ranks(path: str) -> None:
    expected = list(reader(path))
    ranks = []
    for rank in range(2):
        stopped = loader(path, 2, rank, 2)
        iterator = iter(stopped)
        for _ in range(5):
            next(iterator)
        resumed = loader(path, 2, rank, 2)
        resumed.load_state_dict(stopped.state_dict())
        ranks.append(list(resumed))
    check_dealt([ranks[r][i] for i in range(len(ranks[0])) for r in range(2)], expected[10:], 2)


def test_another_number_of_ranks_is_refused(path: str) -> None:
    """Batches would be lost. Another number of workers is refused by torchdata, too."""
    stopped = loader(path, 2, 0, 2)
    next(iter(stopped))
    resumed = loader(path, 2, 0, 1)
    resumed.load_state_dict(stopped.state_dict())
    with pytest.raises(RuntimeError, match=r"world_size=2, now it is 1; use reader.loader\(\), which resumes on any"):
        list(resumed)


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("more", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_second_resume_before_all_workers_have_read(path: str, epoch: int, more: int) -> None:
    expected = list(reader(path, epoch=epoch))
    one = loader(path, 3)
    for _ in range(epoch):
        list(one)
    iterator = iter(one)
    found = [next(iterator) for _ in range(1 if epoch else 7)]
    again = loader(path, 3)
    again.load_state_dict(one.state_dict())
    iterator = iter(again)
    found += [next(iterator) for _ in range(more)]
    last = loader(path, 3)
    last.load_state_dict(again.state_dict())
    assert found + list(last) == expected


@pytest.mark.parametrize("persistent", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stop", [1, pytest.param(28, marks=pytest.mark.slow), pytest.param(31, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("left", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_resume_in_the_second_epoch(path: str, persistent: bool, stop: int, left: int) -> None:
    """The trainer leaves the first epoch early, and the third one, too."""
    expected = [list(reader(path, epoch=epoch)) for epoch in range(4)]
    one, resumed = (StatefulDataLoader(reader(path), None, num_workers=2, persistent_workers=persistent) for _ in "ab")
    assert [batch for batch, _ in zip(one, range(left), strict=False)] == expected[0][:left]
    iterator = iter(one)
    assert [next(iterator) for _ in range(stop)] == expected[1][:stop]
    resumed.load_state_dict(one.state_dict())
    assert list(resumed) == expected[1][stop:]
    assert next(iter(resumed)) == expected[2][0]
    assert list(resumed) == expected[3]
    assert resumed.dataset.epoch == 3
