"""The run's counter sums what workers report, and its loss ends nothing."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import TesseraError
from pipeline.engine.ray.counter import RunCounter


def test_it_sums_over_all_workers(ray_session: Any) -> None:
    counter = RunCounter()
    ray_session.get([counter.actor.add.remote(1, 5, 2) for _ in range(3)])
    assert counter.read() == [3, 15, 6]
    ray_session.get([counter.actor.record_memory.remote("a", size) for size in (5, 9, 7)])
    ray_session.get(counter.actor.record_memory.remote("b", 1))
    assert counter.cause() is None
    ray_session.get([counter.actor.record_error.remote(TesseraError(words)) for words in ("first", "second")])
    assert str(counter.cause()) == "first"
    counter.close()
    assert counter.workers == {"processes": 2, "peak_memory_bytes": 10}


def test_deaths_of_an_actor_count_until_it_maps_a_block(ray_session: Any) -> None:
    counter = RunCounter()
    starts = [ray_session.get(counter.actor.record_start.remote("a")) for _ in range(3)]
    assert starts == [0, 1, 2]
    assert ray_session.get(counter.actor.record_start.remote("b")) == 0
    ray_session.get(counter.actor.record_block.remote("a"))
    assert ray_session.get(counter.actor.record_start.remote("a")) == 1
    counter.close()


def test_a_counter_that_is_gone_answers_nothing(ray_session: Any) -> None:
    counter = RunCounter()
    ray_session.kill(counter.actor)
    assert counter.read() == [0, 0, 0]
    assert counter.cause() is None
    counter.close()
    assert counter.workers is None
