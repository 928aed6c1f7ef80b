"""The run's counter sums what workers report, and its loss ends nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline import run
from pipeline.core.errors import TesseraError
from pipeline.engine.ray.counter import RunCounter
from pipeline.run import pipeline
from tests.stages.media_fixtures import IMAGE, config


def test_it_sums_over_all_workers(ray_session: Any) -> None:
    counter = RunCounter()
    ray_session.get([counter.actor.add.remote(node, 1, 5, 2) for node in ("n", "n", "m")])
    assert counter.read() == [3, 15, 6]
    ray_session.get([counter.actor.record_memory.remote("n", "a", size) for size in (5, 9, 7)])
    ray_session.get(counter.actor.record_memory.remote("n", "b", 1))
    assert counter.cause() is None
    ray_session.get([counter.actor.record_error.remote(TesseraError(words)) for words in ("first", "second")])
    assert str(counter.cause()) == "first"
    counter.close()
    assert counter.nodes is not None
    assert counter.nodes == {
        "m": {"rows": 5, "processes": 0, "peak_memory_bytes": 0},
        "n": {"rows": 10, "processes": 2, "peak_memory_bytes": 10},
    }


def test_deaths_of_an_actor_count_until_it_maps_a_block(ray_session: Any) -> None:
    counter = RunCounter()

    def start(actor: str) -> Any:
        return ray_session.get(counter.actor.record_start.remote(actor))

    def record(actor: str, block: tuple[str, int], done: bool) -> None:
        ray_session.get(counter.actor.record_block.remote(actor, block, done))

    assert [start("a") for _ in range(3)] == [(0, {}), (1, {}), (2, {})]
    record("a", ("x", 0), False)
    record("a", ("y", 3), False)
    assert start("b") == (0, {}), "of the other actor no process has died"
    assert start("a") == (3, {("x", 0): 1, ("y", 3): 1})
    record("a", ("x", 0), False)
    record("a", ("y", 3), False)
    record("a", ("y", 3), True)
    assert start("a") == (1, {("x", 0): 2, ("y", 3): 1})
    counter.close()


class Dies:
    """Ends its own process at any block."""

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        os._exit(1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_actor_that_dies_again_and_again_ends_the_run(ray_session: Any, tmp_path: Path) -> None:
    """Ray alone would start it for ever. Only decoders that are not isolated, and Ray itself, can end an actor."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "a.png")
    settings = config(tmp_path / "in", {"i": IMAGE}, decoders={"limits": {"isolate": False}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "DecodeStage", lambda *arguments: Dies())
        with pytest.raises(TesseraError, match=r"5 processes of (an actor died|actors died at the block)"):
            run.extract(run.prepare(settings, False, None, "ray"), show_progress=False)


def test_a_counter_that_is_gone_answers_nothing(ray_session: Any) -> None:
    counter = RunCounter()
    ray_session.kill(counter.actor)
    assert counter.read() == [0, 0, 0]
    assert counter.cause() is None
    counter.close()
    assert counter.nodes is None
