"""The list of metrics: names that Prometheus recommends, closed label values, and the table of the docs."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.core.schema import METERS
from pipeline.telemetry import metrics
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.metrics import METRICS, Metric
from pipeline.telemetry.prometheus import PrometheusExporter
from tests.support import ROOT


def test_names_and_labels() -> None:
    assert len(METRICS) == len({metric.name for metric in METRICS}) > 25
    for metric in METRICS:
        assert re.fullmatch(r"tessera_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert set(metric.labels) <= {*metrics.VALUES, "device"}


def test_each_meter_of_a_row_has_its_counter() -> None:
    assert set(metrics.METERS) == set(METERS)
    assert len(set(metrics.METERS.values())) == len(METERS)


def test_label_values_are_of_closed_sets() -> None:
    """Whatever a corpus or a library calls a failure, it makes no new series."""
    assert metrics.FAILURES.closed(("corrupt", "decode")) == ("corrupt", "decode")
    assert metrics.FAILURES.closed(("a/file\n{}", "x" * 1000)) == ("other", "other")
    assert metrics.ROWS.closed(("video", "written")) == ("video", "written")
    assert metrics.SAMPLES.closed(()) == ()


def test_promtool_has_no_objection() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    exporter, registry = PrometheusExporter(MetricsConfig(port=1), "/"), CollectorRegistry()
    exporter._begin_counters()
    for metric in METRICS:
        if metric.kind == "gauge":
            exporter.set(metric, ("0",) * len(metric.labels), 1.0)
    registry.register(exporter)
    done = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def test_the_table_of_the_docs_is_this_list() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `tessera_")]
    assert rows == [_row(metric) for metric in METRICS]


def test_the_docs_list_the_values_of_each_label() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    for label, values in metrics.VALUES.items():
        (row,) = re.findall(rf"^\| `{label}` \| (.*) \|$", text, flags=re.M)
        assert set(re.findall(r"`(\w+)`", row)) == set(values)
