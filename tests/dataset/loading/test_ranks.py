"""The rank comes from torch.distributed or the environment, and contradictions are errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.ranks import resolve_ranks


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process() -> None:
    assert resolve_ranks(None, None) == (0, 1)
    assert resolve_ranks(2, 3) == (2, 3)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_ranks(None, None) == (2, 4)
    assert resolve_ranks(1, 2) == (1, 2)  # two processes read the same rows
    assert resolve_ranks(0, 1) == (0, 1)
    with pytest.raises(ConfigError, match="1, but this process is rank 2 of 4"):
        resolve_ranks(1, 4)
    with pytest.raises(ConfigError, match="3, but there are 4 processes"):
        resolve_ranks(2, 3)


@pytest.mark.parametrize(("rank", "world_size"), [("1", None), (None, "2"), ("x", "2"), ("2", "2"), ("-1", "2")])
def test_a_wrong_environment(monkeypatch: pytest.MonkeyPatch, rank: str | None, world_size: str | None) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world_size)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="in the environment"):
        resolve_ranks(None, None)


@pytest.mark.parametrize(("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0)])
def test_wrong_arguments(rank: int | None, world_size: int | None) -> None:
    with pytest.raises(ConfigError, match=r"rank|world_size"):
        resolve_ranks(rank, world_size)


@pytest.mark.usefixtures("group")
def test_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_ranks(None, None) == (0, 1)
    with pytest.raises(ConfigError, match="2, but there are 1 processes"):
        resolve_ranks(0, 2)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="1 of 2 in the environment, but 0 of 1"):
        resolve_ranks(None, None)
    assert resolve_ranks(0, 1) == (0, 1)
