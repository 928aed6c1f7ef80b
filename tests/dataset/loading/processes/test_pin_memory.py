"""Batches pass through torch's pinning of memory unchanged.

Without an accelerator torch does not pin. `simulated` replaces the operators that pin, so that the rest of torch's
code, its thread and the methods of nested tensors run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from tests.dataset.loading import written
from tests.dataset.loading.processes.cases import check_equal
from tests.dataset.loading.processes.test_collates import COLLATES, ROWS, reader

LABELS = pa.table(
    {
        "sample_id": [row["sample_id"] for row in ROWS],
        "class": [f"c{i % 3}" for i in range(200)],
        "box": [None if i % 4 else [i, i + 1] for i in range(200)],
        "source": [{"name": f"n{i}", "page": i} for i in range(200)],
    }
)
"""Columns that are no tensors: texts, lists with nulls, and dicts."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written.write(tmp_path_factory.mktemp("pinned"), ROWS, deleted=[0, 5])


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """An accelerator that pins: supplies the addresses of the memory that it has pinned."""
    pinned: set[int] = set()
    kept = []

    def pin(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        copy = tensor.clone()
        kept.append(copy)  # so that no other tensor gets its address
        pinned.add(copy.data_ptr())
        return copy

    for name, value in {"is_available": True, "current_device_index": 0, "set_device_index": None}.items():
        monkeypatch.setattr(torch.accelerator, name, lambda *args, value=value: value)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args: torch.device("cuda"))
    library = torch.library.Library("aten", "IMPL")
    library.impl("_pin_memory", pin, "CPU")
    library.impl("is_pinned", lambda tensor, device=None: tensor.data_ptr() in pinned, "CPU")
    yield pinned
    library._destroy()


def tensors(batch: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in batch.values() if isinstance(value, torch.Tensor)]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="torch pins with an accelerator")
def test_without_an_accelerator_torch_warns_and_reads_the_same(path: str) -> None:
    expected = list(reader(path, "packed"))
    loader = reader(path, "packed").loader(2, pin_memory=True)
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but no accelerator is found"):
        found = list(loader)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other)
        assert not any(value.is_pinned() for value in tensors(one))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the operators of the accelerator are not replaced")
@pytest.mark.parametrize("name", COLLATES)
def test_a_batch_is_pinned_in_all_its_tensors(path: str, name: str, simulated: set[int]) -> None:
    labels = LABELS if name == "padded" else None
    kwargs = {} if labels is None else {"labels": labels, "collate": None}
    batch = next(iter(reader(path, name, **kwargs)))
    found = pin_memory(batch, "cuda")
    check_equal(found, batch)
    assert [value.is_pinned() for value in tensors(found)] == [True] * len(tensors(batch))
    assert not any(value.is_pinned() for value in tensors(batch) if value.numel())
    if labels is not None:
        assert isinstance(found["source"][0], dict)
        assert None in found["box"]


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the operators of the accelerator are not replaced")
@pytest.mark.parametrize("name", ["packed", "jagged"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_thread_that_pins_reads_ahead_and_is_not_counted(
    path: str, name: str, workers: int, simulated: set[int]
) -> None:
    expected = list(reader(path, name))
    loader = reader(path, name).loader(workers, pin_memory=True)
    found = []
    for number, batch in enumerate(loader):
        found.append(batch)
        assert loader.state_dict()["position"] == (number + 1) % len(expected)
        if number == 3:
            state = loader.state_dict()
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other)
        assert all(value.is_pinned() for value in tensors(one))
    resumed = reader(path, name).loader(workers, pin_memory=True)
    resumed.load_state_dict(state)
    for one, other in zip(resumed, expected[4:], strict=True):
        check_equal(one, other)
