"""A step's stages in one worker: set up once, in the order of the spec, with what each asks for."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pyarrow as pa
import pytest

from pipeline.core.schema import METERS
from pipeline.engine.ray.counter import RunCounter
from pipeline.engine.ray.worker import StageWorker, TaskWorker
from pipeline.engine.spec import StageSpec
from pipeline.sandbox import StageContext


class Adds:
    """Appends its name to the column ``seen``."""

    def __init__(self, name: str, fails: str = "") -> None:
        self.name, self.fails, self.set_up, self.journals = name, fails, 0, list[Any]()

    def setup(self) -> None:
        self.set_up += 1
        if self.fails:
            raise ValueError(self.fails)

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        self.journals.append(journal)
        seen = [[*(one or []), self.name] for one in table["seen"].to_pylist()]
        return table.set_column(table.schema.get_field_index("seen"), "seen", pa.array(seen))


class Reports:
    """Writes into ``seen``: the parent of its process, whether ``colorsys`` is imported, its process."""

    def __init__(self) -> None:
        self.context = StageContext()

    def import_code(self) -> None:
        import colorsys  # noqa: F401

    def setup(self) -> None: ...

    def __call__(self, table: pa.Table, journal: Any = None) -> pa.Table:
        seen = [[str(os.getppid()), str("colorsys" in sys.modules), str(os.getpid())]] * len(table)
        return table.set_column(table.schema.get_field_index("seen"), "seen", pa.array(seen))


def rows(count: int) -> pa.Table:
    meters = {f"meter_{name}": [0.0] * count for name in METERS}
    columns: dict[str, Any] = {"sample_id": [f"s{i}" for i in range(count)], "window": [0] * count}
    return pa.table(
        {
            **columns,
            **meters,
            "seen": pa.nulls(count, pa.list_(pa.string())),
            "final": [True] * count,
            "failures": pa.array([[]] * count, pa.list_(pa.struct([("kind", pa.string())]))),
        }
    )


@pytest.fixture
def counter(ray_session: Any) -> Any:
    made = RunCounter()
    yield made
    made.close()


def _run(ray_session: Any, counter: RunCounter, specs: tuple[StageSpec, ...], last: bool) -> Any:
    """In a process of Ray: a worker's id is that of its process."""
    made, actor = rows(3), counter.actor

    def work() -> tuple[list[Any], int, int]:
        worker = StageWorker(specs, 1, actor, last)
        done = [worker(made), worker(made)]
        return done, specs[0].stage.set_up, os.getpid()

    return ray_session.get(ray_session.remote(num_cpus=0)(work).remote())


def test_stages_run_in_order_and_are_set_up_once(ray_session: Any, counter: RunCounter) -> None:
    specs = (StageSpec("a", Adds("a"), "w"), StageSpec("b", Adds("b"), "w"))
    (first, second), set_up, _ = _run(ray_session, counter, specs, last=True)
    assert first["seen"].to_pylist() == [["a", "b"]] * 3
    assert second["seen"].to_pylist() == [["a", "b"]] * 3
    assert set_up == 1
    assert sum(first["meter_bytes_moved"].to_pylist()) > 0
    deadline = time.monotonic() + 20
    while counter.read() != [6, 6, 0]:  # rows of the last step are finished; workers do not wait for the counter
        assert time.monotonic() < deadline, counter.read()
        time.sleep(0.05)


def test_rows_of_another_step_are_not_counted(ray_session: Any, counter: RunCounter) -> None:
    _run(ray_session, counter, (StageSpec("a", Adds("a"), "w"),), last=False)
    assert counter.read() == [0, 0, 0]


def test_processes_fork_from_one_of_their_worker(ray_session: Any, counter: RunCounter) -> None:
    """The next one after a death has no imports to wait for."""
    specs = tuple(StageSpec(name, Reports(), "w", journaled=True) for name in "ab")
    made, actor = rows(1), counter.actor

    def work() -> tuple[int, int, list[list[str]], float]:
        worker = StageWorker(specs, 1, actor, False)
        found = []
        for stage in worker.stages:
            found += [stage(made)["seen"][0].as_py()]
            stage.child.process.kill()
            stage.child.process.wait()
        started = time.monotonic()
        found += [worker.stages[0](made)["seen"][0].as_py()]
        return os.getpid(), worker.fork_server.process.pid, found, time.monotonic() - started

    worker_pid, forks_pid, found, seconds = ray_session.get(ray_session.remote(num_cpus=0)(work).remote())
    assert worker_pid != forks_pid
    assert [one[:2] for one in found] == [[str(forks_pid), "True"]] * 3
    assert len({pid for *_, pid in found}) == 3
    assert seconds < 1.0


def test_a_setup_that_fails_is_raised_by_the_first_block_and_reported(ray_session: Any, counter: RunCounter) -> None:
    with pytest.raises(Exception, match="no weights"):
        _run(ray_session, counter, (StageSpec("a", Adds("a", fails="no weights"), "w"),), last=True)
    assert str(counter.cause()) == "ValueError: no weights"


def test_a_task_keeps_its_stages(ray_session: Any, counter: RunCounter) -> None:
    task, made = TaskWorker("probe", (StageSpec("a", Adds("a"), "w"),), 1, counter.actor, False), rows(2)

    def work() -> tuple[Any, Any]:
        task(made)
        from pipeline.engine.ray.worker import _READY

        return task(made)["seen"].to_pylist(), _READY[task.key].stages[0].set_up

    assert ray_session.get(ray_session.remote(num_cpus=0)(work).remote()) == ([["a"]] * 2, 1)
    assert task.__name__ == "probe"
