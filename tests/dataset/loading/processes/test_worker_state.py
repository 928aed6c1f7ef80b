"""A worker process resumes with its own batches, on the same numbers of ranks and workers only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.processes.worker_state import WorkerState, load_worker

SAVED = WorkerState(3, 40, 7).save(world_size=2, num_workers=4)


def test_it_is_plain_json_and_resumes_on_the_same_numbers() -> None:
    state = json.loads(json.dumps({"worker": SAVED}))
    assert load_worker(state, 3, 40, 2, 4) == WorkerState(3, 40, 7)


def test_a_state_of_the_trainer_has_no_batches_of_a_worker() -> None:
    assert load_worker({}, 3, 40, 5, 6) == WorkerState(3, 40, 0)


@pytest.mark.parametrize(
    ("numbers", "message"), [((1, 4), "world_size=2, now it is 1"), ((2, 3), "num_workers=4, now it is 3")]
)
def test_other_numbers(numbers: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"saved with {message}; use reader.loader\(\), which") as error:
        load_worker({"worker": SAVED}, 3, 40, *numbers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"batches": -1}, {"batches": "x"}, {"world_size": None}, {"num_workers": 0}])
def test_wrong_values(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the state of the reader"):
        load_worker({"worker": {**SAVED, **change}}, 3, 40, 2, 4)


@pytest.mark.parametrize("worker", [None, [], {"batches": 7}])
def test_a_state_without_numbers(worker: Any) -> None:
    with pytest.raises(ConfigError, match="the state of the reader"):
        load_worker({"worker": worker}, 3, 40, 2, 4)
