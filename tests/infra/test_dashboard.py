"""infra/grafana/: the dashboard shows every metric, and a real Prometheus answers each of its queries with data of real
runs."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import run
from pipeline.engine.ray import metrics as ray_metrics
from pipeline.telemetry import recording
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.metrics import METRICS
from pipeline.telemetry.prometheus import exporting
from tests.engine.slow_encoder import SlowEncode
from tests.infra.prometheus_server import FOLDER, Prometheus, exposed, free_port, need, scaled, wait_until
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, config, write_clip, write_tone
from tests.support import ROOT

GRAFANA = ROOT / "infra" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "tessera.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
DEVICES = "\n".join(f'tessera_device_busy_ratio{{config="recorded",device="{n}"}} 0.{n + 3}' for n in range(2)) + "\n"
"""Two GPUs, as the driver of a run with GPUs exports them."""
DATA_S = 60.0
"""Longest wait for data: the workers of Ray report every ten seconds."""


def _queries() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_panels_are_complete() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) > 20
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used <= {*variables, "__rate_interval", "__all"}


def test_panels_do_not_overlap() -> None:
    cells = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


def test_every_metric_has_a_panel() -> None:
    """By itself, or in a recording rule that a panel shows."""
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
    recorded = {
        rule["record"]: rule["expr"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    shown = " ".join(_queries())
    shown += " ".join(expression for name, expression in recorded.items() if name in shown)
    assert {metric.name for metric in METRICS} == set(re.findall(r"\btessera_\w+", shown))
    assert set(re.findall(r"tessera:[\w:]+", shown)) == set(recorded)


def test_provisioning_names_what_there_is() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tessera.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", scraped)


class Seen:
    """The queries that have had data, as Grafana asks them. A query about a run has none long after it."""

    def __init__(self, prometheus: Prometheus, left_out: Sequence[str]) -> None:
        self.prometheus = prometheus
        self.without = {one for one in _queries() if not any(name in one for name in left_out)}

    def look(self) -> None:
        for query in list(self.without):
            if self.prometheus.query(query.replace("$__rate_interval", "1m").replace("$config", ".*")):
                self.without.discard(query)

    def during(self, call: Callable[[], Any]) -> Any:
        """Calls in another thread, and looks meanwhile. Returns what the call returns."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(call)
            while not done.done():
                self.look()
                time.sleep(0.3)
        return done.result()

    def wait(self) -> None:
        deadline = time.monotonic() + DATA_S
        while self.without and time.monotonic() < deadline:
            self.look()
            time.sleep(0.3)
        assert self.without == set()


def _corpus(folder: Path, copies: int) -> None:
    """Enough for several scrapes while the run lasts, whatever the machine."""
    folder.mkdir()
    write_clip(folder / "clip.mp4", 2.5, sound_s=2.5)
    write_tone(folder / "tone.wav", 3.2)
    for number in range(copies):
        shutil.copy(folder / "clip.mp4", folder / f"clip{number}.mp4")
    (folder / "bad.wav").write_bytes(b"RIFF....WAVE")


@pytest.fixture
def prepared(tmp_path: Path, prepare: Callable[..., Any]) -> Callable[..., Any]:
    features = {"i": IMAGE, "a": AUDIO, "v": VIDEO}

    def call(engine: str, copies: int, **metrics: Any) -> Any:
        _corpus(tmp_path / "in", copies)
        sections = {"window": {"length_s": 1}, "compute": {"block_rows": 4, "num_cpus": 1}, "metrics": metrics}
        return prepare(config(tmp_path / "in", features, **sections), False, None, engine)

    return call


@pytest.mark.slow
def test_every_panel_has_data_of_a_local_run(tmp_path: Path, prepared: Callable[..., Any]) -> None:
    need("prometheus")
    port = free_port()
    bound = prepared("local", 250, port=port)
    (tmp_path / "p").mkdir()
    rules = scaled((FOLDER / "rules.yml").read_text(), 1 / 20)
    with (
        exposed(lambda: DEVICES) as devices,
        Prometheus(tmp_path / "p", {"tessera": [f"127.0.0.1:{port}"], "node": [devices]}, rules, "1s") as prometheus,
        exporting(bound.config.metrics, bound.config.output.path),
    ):
        recording.record_night("failed", 4, time.time() - 100)
        recording.record_lag(13, 60.0)
        seen = Seen(prometheus, left_out=["ray_node_"])
        wait_until(lambda: prometheus.value("sum(tessera_blocks_total)") == 0, DATA_S)
        report = seen.during(lambda: run.extract(bound, show_progress=False))
        recording.record_night("complete", 0)
        seen.wait()
        assert prometheus.rules_with_errors() == []
        exact = {
            'sum(tessera_rows_total{outcome=~"written|partial"})': report["rows_written"],
            "sum(tessera_failures_total)": sum(report["failures_by_kind"].values()),
            "sum(tessera_decodings_total)": report["decoded"],
            "sum(tessera_written_bytes_total)": report["bytes_written"],
            "max(tessera_lag_samples)": 13,
        }
        assert {query: prometheus.value(query) for query in exact} == exact
        assert prometheus.value("sum(increase(tessera_block_rows_total[1m]))") > 0.9 * report["rows_planned"]
        assert [one["metric"]["device"] for one in prometheus.query("tessera:device_busy:ratio")] == ["0", "1"]


@pytest.mark.slow
def test_every_panel_has_data_of_a_run_on_ray(
    tmp_path: Path, prepared: Callable[..., Any], ray_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the node's agent, whose names lose their prefix, and Ray's own figures of nodes and queues.

    The run lasts for several reports of its workers: there is no rate from one.
    """
    need("prometheus")
    monkeypatch.setattr("pipeline.run.pipeline.EncodeStage", SlowEncode)
    name = f"dashboard-{time.monotonic_ns()}"
    bound = prepared("ray", 160, name=name)
    (node,) = ray_session.nodes()
    agent = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    (tmp_path / "p").mkdir()
    rules = scaled((FOLDER / "rules.yml").read_text(), 1)
    with (
        exposed(lambda: DEVICES) as devices,
        Prometheus(tmp_path / "p", {"ray": [agent], "node": [devices]}, rules, "1s") as prometheus,
    ):
        ray_metrics.use(MetricsConfig(name=name), repeats=True)
        recording.record_lag(13, 60.0)
        recording.record_night("failed", 4, time.time() - 100)
        seen = Seen(prometheus, left_out=["tessera_memory_limit_bytes", "tessera_disk_free_bytes"])
        seen.during(lambda: run.extract(bound, show_progress=False))
        ray_metrics.use(MetricsConfig(name=name), repeats=True)
        recording.record_night("complete", 0)
        try:
            seen.wait()
        finally:
            ray_metrics.stop()
        assert prometheus.rules_with_errors() == []
        assert prometheus.query('{__name__=~"ray_tessera_.*"}') == []
        assert prometheus.query('{otel_scope_name!=""}') == []
        assert prometheus.value(f'sum(tessera_rows_total{{config="{name}"}})') > 0
