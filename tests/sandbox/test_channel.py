"""A worker process that maps several tables at a time, in threads that share the stage."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.core.errors import SampleError
from pipeline.sandbox import SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from pipeline.sandbox.stage import NO_LIMITS
from tests.sandbox.plain_stages import Concurrent


@pytest.fixture
def stage(tmp_path: Path, fork_server: Any) -> Iterator[SandboxedStage]:
    options = ProcessOptions(fork_server.address, concurrency=2)
    made = SandboxedStage(Concurrent(tmp_path / "once"), NO_LIMITS, options, journaled=True)
    made.setup()
    yield made
    made.close()


def _table(do: str, number: int) -> pa.Table:
    return pa.table({"do": [do], "sample_id": [str(number)], "window": [0]})


def _both(stage: SandboxedStage, first: str, second: str) -> list[pa.Table]:
    """What two threads get for two tables."""
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(stage, _table(do, number)) for number, do in enumerate((first, second))]
        return [one.result(60) for one in waiting]


def test_two_tables_are_mapped_at_the_same_time_by_one_process(stage: SandboxedStage) -> None:
    assert stage.child is not None
    pid = stage.child.process.pid
    done = _both(stage, "meet", "meet")
    assert len({one["thread"][0].as_py() for one in done}) == 2
    assert [set(one["values"].combine_chunks().flatten().to_pylist()) for one in done] == [{0.0}, {1.0}]
    assert stage.child.process.pid == pid


def test_more_threads_than_that_wait(stage: SandboxedStage) -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(stage, [_table("", number) for number in range(40)]))
    assert [one["sample_id"][0].as_py() for one in done] == [str(number) for number in range(40)]
    assert len({one["thread"][0].as_py() for one in done}) <= 2


def test_a_death_costs_neither_table_anything(stage: SandboxedStage) -> None:
    """Both are mapped again: that of the killer row, and the one that was mapped meanwhile."""
    done = _both(stage, "once", "meet")
    assert [one["sample_id"][0].as_py() for one in done] == ["0", "1"]
    assert not stage.refused


def test_after_a_death_rows_run_alone(stage: SandboxedStage) -> None:
    done = _both(stage, "alone", "alone")
    assert [one["seen"][0].as_py() for one in done] == [1, 1]


def test_a_failure_of_the_device_that_two_threads_report_counts_once(
    stage: SandboxedStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sandbox.stage._DEVICE_FAILURES_AT_FIRST", 1)
    assert [one["sample_id"][0].as_py() for one in _both(stage, "device", "device")] == ["0", "1"]
    assert stage.device_failures == 1


def test_a_thread_that_exits_ends_the_process(stage: SandboxedStage) -> None:
    """`sys.exit` in a thread ends only the thread: its parent would wait for ever."""
    with pytest.raises(SampleError, match=r"the encoder's process ended itself while encoding \(exit code 3\)"):
        _both(stage, "exit", "exit")


def test_processes_and_files_do_not_add_up(tmp_path: Path, fork_server: Any) -> None:
    counts, before = [], threading.active_count()
    for _ in range(3):
        options = ProcessOptions(fork_server.address, concurrency=3)
        made = SandboxedStage(Concurrent(tmp_path / "once"), NO_LIMITS, options, journaled=True)
        _both(made, "once", "meet")
        (tmp_path / "once").unlink()
        made.close()
        del made
        gc.collect()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] == counts[0]
    assert threading.active_count() == before
