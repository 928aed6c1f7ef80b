"""A step's stages in one worker: set up once, in the order of the spec, with what each asks for."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import psutil
import pyarrow as pa
import pytest

from pipeline.core.schema import METERS
from pipeline.engine.ray.counter import RunCounter
from pipeline.engine.ray.worker import StageWorker, TaskWorker
from pipeline.engine.spec import StageSpec
from pipeline.sandbox import StageContext
from pipeline.storage.settings import DEFAULT


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
    """Writes into ``seen``: the parent of its process, whether ``colorsys`` is imported, its process.

    Args:
        dies: importing ends the fork server.
    """

    def __init__(self, dies: bool = False) -> None:
        self.context, self.dies = StageContext(), dies

    def import_code(self) -> None:
        import colorsys  # noqa: F401

        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)

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
        worker = StageWorker(specs, 1, actor, last, DEFAULT)
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
    """The next one after a death has no imports to wait for. Nothing is left after the worker."""
    specs = tuple(StageSpec(name, Reports(), "w", journaled=True) for name in "ab")
    made, actor = rows(1), counter.actor

    def work() -> tuple[int, list[list[str]], list[Any]]:
        worker, found = StageWorker(specs, 1, actor, False, DEFAULT), []
        forks, stages = worker.fork_server, worker.stages
        for stage in stages:
            found += [stage(made)["seen"][0].as_py()]
            stage.child.process.kill()
            stage.child.process.wait()
        found += [stages[0](made)["seen"][0].as_py()]
        worker.close()
        pids = [forks.process.pid, *(int(pid) for *_, pid in found)]
        return (
            forks.process.pid,
            found,
            [pid for pid in pids if psutil.pid_exists(pid)] + [os.path.exists(forks.folder)],
        )

    forks_pid, found, left = ray_session.get(ray_session.remote(num_cpus=0)(work).remote())
    assert [one[:2] for one in found] == [[str(forks_pid), "True"]] * 3
    assert len({pid for *_, pid in found}) == 3
    assert left == [False]


def test_where_no_fork_server_starts_each_process_imports_by_itself(ray_session: Any, counter: RunCounter) -> None:
    specs = (StageSpec("a", Reports(dies=True), "w", journaled=True),)
    made, actor = rows(1), counter.actor

    def work() -> tuple[int, list[str]]:
        worker = StageWorker(specs, 1, actor, False, DEFAULT)
        try:
            return os.getpid(), worker(made)["seen"][0].as_py()
        finally:
            worker.close()

    pid, (parent, *_) = ray_session.get(ray_session.remote(num_cpus=0)(work).remote())
    assert parent == str(pid)


def test_a_setup_that_fails_is_raised_by_the_first_block_and_reported(ray_session: Any, counter: RunCounter) -> None:
    with pytest.raises(Exception, match="no weights"):
        _run(ray_session, counter, (StageSpec("a", Adds("a", fails="no weights"), "w"),), last=True)
    assert str(counter.cause()) == "ValueError: no weights"


def test_a_task_keeps_its_stages_until_the_next_run(ray_session: Any, counter: RunCounter) -> None:
    made = rows(2)
    first, other, later = (
        TaskWorker(name, run, (StageSpec("a", Adds("a"), "w"),), 1, counter.actor, False, DEFAULT)
        for name, run in (("probe", b"1"), ("decode", b"1"), ("probe", b"2"))
    )

    def work() -> tuple[Any, Any, list[Any]]:
        from pipeline.engine.ray.worker import _READY

        first(made)
        other(made)
        done, set_up = first(made)["seen"].to_pylist(), _READY[first.key].stages[0].set_up
        kept = sorted(name for _, name in _READY)
        later(made)
        return done, set_up, [kept, [*_READY]]

    done, set_up, kept = ray_session.get(ray_session.remote(num_cpus=0)(work).remote())
    assert (done, set_up) == ([["a"]] * 2, 1)
    assert kept == [["decode", "probe"], [(b"2", "probe")]]
