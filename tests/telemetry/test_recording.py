"""Values reach every recorder, also one that is added later; without one nothing is counted."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.telemetry import metrics, recording
from pipeline.telemetry.metrics import Metric
from tests.telemetry.test_table_counts import random_table


class Kept:
    """A recorder that keeps what it gets."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        assert metric.kind == "counter"
        assert value > 0
        self.values[metric.name, labels] = self.values.get((metric.name, labels), 0) + value

    def set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        assert metric.kind == "gauge"
        self.values[metric.name, labels] = value


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(recording, "_values", recording._Values())
    return Kept()


def test_nothing_is_read_without_a_recorder(kept: Kept) -> None:
    recording.count_table(pa.table({"no": ["column of a finished row"]}))
    recording.count_files([{"no": "bytes"}], [], 1.0)
    assert recording.increments(random_table(0)) == []


def test_counters_grow_and_a_removed_recorder_gets_no_more(kept: Kept) -> None:
    recording.use(kept)
    recording.use(kept)
    for _ in range(2):
        recording.count_table(random_table(0))
        recording.count_files([{"bytes": 5}, {"bytes": 6}], [{"bytes": 7}], 0.5)
    recording.count_files([], [], 0.0)
    recording.remove(kept)
    recording.count_table(random_table(0))
    assert kept.values["tessera_blocks_total", ()] == 2
    assert kept.values["tessera_shards_total", ()] == 4
    assert kept.values["tessera_written_bytes_total", ()] == 36
    assert kept.values["tessera_write_seconds_total", ()] == 1.0


def test_gauges_are_kept_for_a_later_recorder(kept: Kept) -> None:
    recording.begin_run(7)
    recording.use(kept)
    assert kept.values["tessera_samples_planned", ()] == 7
    assert kept.values["tessera_run_active", ()] == 1
    recording.end_run()
    assert kept.values["tessera_run_active", ()] == 0
    assert (
        kept.values["tessera_run_end_timestamp_seconds", ()] >= kept.values["tessera_run_start_timestamp_seconds", ()]
    )


def test_queues_are_read_when_asked_for_and_empty_at_the_end(kept: Kept) -> None:
    recording.use(kept)
    depths = {"probe": 3.0, "encode": 2.0}
    recording.watch(lambda: [(metrics.QUEUE, (phase,), depth) for phase, depth in depths.items()])
    assert ("tessera_queue_blocks", ("probe",)) not in kept.values
    recording.refresh()
    depths["probe"] = 1.0
    assert kept.values["tessera_queue_blocks", ("probe",)] == 3
    recording.refresh()
    assert kept.values["tessera_queue_blocks", ("probe",)] == 1
    recording.end_run()
    recording.refresh()
    assert [kept.values["tessera_queue_blocks", (phase,)] for phase in depths] == [0, 0]


@pytest.mark.parametrize(
    ("status", "exit_code", "names"),
    [
        ("complete", 0, {"success", "complete"}),
        ("partial", 0, {"success"}),
        ("partial", 75, {"success"}),
        ("failed", 3, {"failure"}),
        ("failed", 4, {"failure"}),
    ],
)
def test_how_a_night_ended(kept: Kept, status: recording.NightStatus, exit_code: int, names: set[str]) -> None:
    recording.use(kept)
    recording.record_lag(12, None)
    recording.record_night(status, exit_code, 1000.0)
    assert kept.values["tessera_night_exit_code", ()] == exit_code
    times = {name for (name, _), value in kept.values.items() if value == 1000.0}
    assert times == {f"tessera_night_{name}_timestamp_seconds" for name in {*names, "end"}}
    assert kept.values["tessera_lag_samples", ()] == 12
    assert kept.values["tessera_lag_oldest_age_seconds", ()] == 0
