"""What a process passes to the agent of its node: counters of workers that end, gauges of a driver while it works."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import engine
from pipeline.config.models import ComputeConfig
from pipeline.engine.ray import metrics as ray_metrics
from pipeline.telemetry import metrics, recording
from pipeline.telemetry.config import MetricsConfig
from tests.support import ROOT
from tests.support.exposition import Exposition, read
from tests.support.ray_cluster import RayCluster
from tests.telemetry.test_table_counts import random_table

AGENT_S = 30.0
KEPT_S = 20.0
"""How long an agent keeps a gauge."""


@pytest.fixture
def name() -> str:
    """A value of the label ``config`` that no other test has."""
    return f"test-{time.monotonic_ns()}"


@pytest.fixture
def agent(ray_session: Any, name: str) -> Iterator[Callable[[], Exposition]]:
    """Reads what the agent of the session's node has of this test."""
    (node,) = ray_session.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    yield lambda: Exposition(read(url), name, prefix="ray_")
    ray_metrics.stop()


def _wait(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AGENT_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.5)


class Counts:
    """An actor that counts two tables, as a worker of the last step does."""

    def __init__(self, config: MetricsConfig) -> None:
        ray_metrics.use(config)

    def count(self) -> None:
        for seed in (0, 1):
            recording.count_table(random_table(seed))


@pytest.mark.parametrize("is_on", [True, False])
def test_a_worker_reports_before_it_ends(
    ray_session: Any, agent: Callable[[], Exposition], name: str, is_on: bool
) -> None:
    actor = ray_session.remote(num_cpus=0)(Counts).remote(MetricsConfig(name=name, ray=is_on))
    ray_session.get(actor.count.remote())
    del actor
    if not is_on:
        time.sleep(3)
        assert agent().samples == []
        return
    _wait(lambda: agent()("tessera_block_rows_total") == 120)
    found = agent()
    assert found("tessera_rows_total") == 118
    assert found("tessera_failures_total", kind="corrupt") > 0
    assert {key for _, labels, _ in found.samples for key in labels} >= {"WorkerId", "config", "outcome", "kind"}


@pytest.mark.slow
def test_gauges_of_a_driver_stay_as_long_as_it_works(agent: Callable[[], Exposition], name: str) -> None:
    ray_metrics.use(MetricsConfig(name=name), repeats=True)
    recording.set_gauge(metrics.LAG_SAMPLES, 13)
    _wait(lambda: agent()("tessera_lag_samples") == 13)
    time.sleep(KEPT_S + 5)
    assert agent()("tessera_lag_samples") == 13
    ray_metrics.stop()
    _wait(lambda: "tessera_lag_samples" not in agent().names())


def test_another_config_gets_another_name(agent: Callable[[], Exposition], name: str) -> None:
    ray_metrics.use(MetricsConfig(name=f"{name}-other"))
    ray_metrics.use(MetricsConfig(name=name), repeats=True)
    recording.set_gauge(metrics.LAG_SAMPLES, 14)
    _wait(lambda: agent()("tessera_lag_samples") == 14)


def test_no_ray_starts_only_for_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    engine.export_gauges("ray", ComputeConfig(), MetricsConfig())
    engine.export_gauges("local", ComputeConfig(address="127.0.0.1:1"), MetricsConfig())
    assert ray_metrics._used is None


SHORT = """
from pipeline import engine
from pipeline.config.models import ComputeConfig
from pipeline.telemetry import recording
from pipeline.telemetry.config import MetricsConfig
engine.export_gauges("auto", ComputeConfig(), MetricsConfig(name="short"))
recording.record_night("failed", 4)
import ray
print(*(f"http://{one['NodeManagerAddress']}:{one['MetricsExportPort']}/metrics" for one in ray.nodes()))
"""


@pytest.mark.slow
def test_a_night_with_nothing_to_do_reports_how_it_ended(tmp_path: Path) -> None:
    """Its driver joins the cluster for that, and lives for seconds."""
    with RayCluster(tmp_path) as cluster:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        command = [sys.executable, "-c", SHORT]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = Exposition(read(done.stdout.split()[-1]), "short", prefix="ray_")
    assert found("tessera_night_exit_code") == 4
    assert found("tessera_night_failure_timestamp_seconds") > time.time() - 600
