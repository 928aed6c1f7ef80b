"""The processes of a stage: small parts after one died, how one is stopped, and that none leaves anything behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.core.errors import TesseraError
from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox import stage as stages
from pipeline.sandbox._process_memory import ProcessMemory
from pipeline.sandbox.process import ProcessOptions
from pipeline.sandbox.stage import NO_LIMITS
from pipeline.stages.decode import DecodeStage
from tests.sandbox.conftest import FORKED, Isolate, probed
from tests.sandbox.plain_stages import Guarded, Journaled, Plain
from tests.stages.media_fixtures import IMAGE, config

TIGHT = LimitsConfig(row_seconds=5.0, memory_bytes=256 << 20)


@FORKED
def test_a_stage_that_dies_at_no_work_is_an_error_of_the_run(starts: list[float], isolated: Isolate) -> None:
    stage = isolated(Plain(), TIGHT)
    with pytest.raises(TesseraError, match=r"died \(SIGABRT\), 4 times, with no file to blame"):
        stage(pa.table({"do": ["", "", "abort"]}))
    assert len(stage(pa.table({"do": ["", ""]}))) == 2


@pytest.mark.slow
def test_hundreds_of_tables_leave_nothing_behind(folder: Path) -> None:
    settings, features, rows = probed(
        config(folder, {"i": {**IMAGE, "tokenizer": {**IMAGE["tokenizer"], "size": 224}}})
    )
    stage = SandboxedStage(DecodeStage(settings, features), TIGHT)
    stage.setup()
    assert stage.child is not None
    child, ours = ProcessMemory(stage.child.process.pid), ProcessMemory()

    def held() -> tuple[int, int, int, int]:
        gc.collect()
        assert stage.child is not None
        fds = [len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", stage.child.process.pid)]
        return fds[0], fds[1], ours.anonymous_bytes(), child.anonymous_bytes()

    for _ in range(30):
        stage(rows)
    before = held()
    for _ in range(300):
        assert stage(rows).nbytes > 500_000
    after = held()
    assert after[0] <= before[0]
    assert after[1] <= before[1]
    assert after[2] - before[2] < 8 << 20
    assert after[3] - before[3] < 8 << 20


@pytest.mark.parametrize("isolated", ["forked", pytest.param("alone", marks=pytest.mark.slow)], indirect=True)
def test_deaths_leave_nothing_behind(isolated: Isolate) -> None:
    stage = isolated(Plain(), TIGHT)
    counts = []
    for _ in range(2):
        with pytest.raises(TesseraError, match="no file to blame"):
            stage(pa.table({"do": ["exit"]}))
        stage(pa.table({"do": [""]}))
        gc.collect()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[-1] == counts[0]


def test_rows_of_a_journaled_stage_are_judged_alone(fork_server: Any) -> None:
    """Three windows of one sample kill their process; its other windows, before and after them, are good."""
    stage = SandboxedStage(Journaled(), NO_LIMITS, ProcessOptions(fork_server.address), journaled=True)
    do = ["", "abort", "abort", "", "abort", ""]
    table = pa.table({"sample_id": ["a"] * 6, "window": range(6), "do": do})
    expected = ["crash" if one else "done" for one in do]
    assert stage(table)["result"].to_pylist() == expected
    assert stage(table.slice(3))["result"].to_pylist() == expected[3:]
    stage.close()


def test_after_a_death_tables_are_mapped_in_small_parts_for_a_while(folder: Path) -> None:
    """Each later death then costs the few rows before it: those that take 25 ms, at least 8 and at most 32."""
    stage = SandboxedStage(Plain(), LimitsConfig())
    assert stage._parts(20) == [(0, 20, False)]
    with pytest.raises(TesseraError, match="no file to blame"):
        stage(pa.table({"do": ["exit"]}))
    assert stage._parts(20) == [(16, 20, False), (8, 16, False), (0, 8, False)]
    assert stage._parts(0) == [(0, 0, False)]
    assert stage(pa.table({"do": [""] * 20, "n": range(20)}))["n"].to_pylist() == list(range(20))
    assert stage.cautious_rows < 512
    for seconds, rows in ((2.0, 8), (0.001, 25), (1e-6, 32)):
        stage.row_s = seconds
        assert stage._parts(200)[-1] == (0, rows, False)
    stage(pa.table({"do": ["nap", ""]}))
    assert 0.025 <= stage.row_s < 1.0
    stage(pa.table({"do": [""]}))
    assert 0.025 <= stage.row_s < 1.0
    for _ in range(30):
        stage(pa.table({"do": [""] * 20}))
    assert stage._parts(20) == [(0, 20, False)]
    stage.close()


@FORKED
def test_a_table_kills_more_often_than_is_remembered(
    isolated: Isolate, starts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes end at each killer, wherever it lies in a part, and none at another row."""
    monkeypatch.setattr(stages, "_MAX_REMEMBERED", 3)
    deadly = {0, 3, 4, 9, 17, 18, 19, 30, 36, 39}
    table = pa.table({"n": range(40), "do": ["abort" if n in deadly else "" for n in range(40)]})
    stage = isolated(Guarded(), LimitsConfig())
    mapped = stage(table)
    assert mapped["n"].to_pylist() == list(range(40))
    assert mapped["result"].to_pylist() == ["crash" if n in deadly else "done" for n in range(40)]
    assert len(starts) == 1 + 2 * len(deadly)
    stage.close()


class SlowStart(Journaled):
    def setup(self) -> None:
        time.sleep(60)


def test_a_worker_that_is_starting_can_be_stopped() -> None:
    """Models may take long to load. It is not started again, as one that was killed from outside is."""
    stage = SandboxedStage(SlowStart(), NO_LIMITS, journaled=True)
    threading.Timer(1.0, stage.stop).start()
    started = time.monotonic()
    with pytest.raises(TesseraError, match=r"SlowStart was stopped|cannot start"):
        stage.setup()
    assert time.monotonic() - started < 20
    assert stage._started is not None
    assert stage._started.poll() is not None


def test_a_stage_that_was_stopped_starts_nothing_more() -> None:
    stage = SandboxedStage(Journaled(), NO_LIMITS, journaled=True)
    stage.setup()
    assert stage.child is not None
    stage.stop()
    with pytest.raises(TesseraError, match="Journaled was stopped"):
        stage(pa.table({"sample_id": ["a"], "window": [0], "do": [""]}))
    assert stage.child is None
