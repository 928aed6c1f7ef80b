"""infra/prometheus/: promtool accepts it, and each alert fires and rests at the series where it should."""

from __future__ import annotations

import errno
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.errors import StorageError
from pipeline.nightly.outcome import exit_code
from pipeline.telemetry.metrics import METRICS
from tests.infra.alert_cases import CASES, Case
from tests.infra.prometheus_server import FOLDER, need
from tests.infra.write_prometheusrule import as_kubernetes
from tests.support import ROOT

RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}


def test_promtool_accepts_them() -> None:
    need("promtool")
    for arguments in (["rules", "rules.yml"], ["config", "--syntax-only", "prometheus.yml"]):
        done = subprocess.run(["promtool", "check", *arguments], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "FAILED" not in done.stdout + done.stderr


def test_each_alert_has_a_section_for_whoever_is_on_call() -> None:
    headings = re.findall(r"^#+ (Tessera\w+)$", (ROOT / "docs" / "operating.md").read_text(), flags=re.M)
    assert headings == list(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"docs/operating.md#{name.lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+m", alert["for"])


def test_the_section_about_disks_names_the_code_of_a_full_one() -> None:
    full = StorageError("cannot write")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    text = (ROOT / "docs" / "operating.md").read_text()
    (code,) = re.findall(r"A full disk ends the night with code (\d)", " ".join(text.split()))
    assert int(code) == exit_code(full) == 2


def test_each_alert_has_cases_at_which_it_fires_and_rests() -> None:
    for fires in (True, False):
        assert {case.alert for case in CASES if (case.summary is not None) == fires} == set(ALERTS)


def test_rules_name_only_metrics_that_there_are() -> None:
    named = set(re.findall(r"\btessera_\w+", (FOLDER / "rules.yml").read_text()))
    assert named <= {metric.name for metric in METRICS}


@pytest.mark.parametrize("every_s", sorted({case.every_s for case in CASES}))
def test_alerts_fire_and_rest(tmp_path: Path, every_s: int) -> None:
    """Each case by itself, with all rules."""
    need("promtool")
    cases = [case for case in CASES if case.every_s == every_s]
    document = {
        "rule_files": [str(FOLDER / "rules.yml")],
        "evaluation_interval": f"{every_s}s",
        "group_eval_order": [group["name"] for group in RULES["groups"]],
        "tests": [_test(case) for case in cases],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _test(case: Case) -> dict[str, Any]:
    alert: dict[str, Any] = {"eval_time": f"{case.at_s}s", "alertname": case.alert}
    if case.summary is not None:
        rule = ALERTS[case.alert]
        annotations = {"summary": case.summary, "runbook_url": rule["annotations"]["runbook_url"]}
        alert["exp_alerts"] = [{"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}]
    return {
        "name": f"{case.alert} at {case.at_s} s",
        "interval": f"{case.every_s}s",
        "input_series": [{"series": _series(name), "values": values} for name, values in case.series.items()],
        "alert_rule_test": [alert],
    }


def _series(name: str) -> str:
    """Returns a series with the label ``config``, which Tessera's own metrics have."""
    if not name.startswith("tessera_"):
        return name
    name, _, labels = name.partition("{")
    return f'{name}{{config="a"' + (f",{labels}" if labels else "}")


def test_the_rules_of_kubernetes_are_the_same() -> None:
    """`python -m tests.infra.write_prometheusrule` writes them."""
    assert (FOLDER / "prometheusrule.yaml").read_text() == as_kubernetes((FOLDER / "rules.yml").read_text())


def test_all_scrapes_rename_what_comes_from_ray() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = [one for one in config["scrape_configs"] if one["job_name"] == "ray"]
    pods = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    (endpoint,) = pods["spec"]["podMetricsEndpoints"]
    assert _snake(endpoint["metricRelabelings"]) == job["metric_relabel_configs"]
    assert {"targetLabel": "job", "replacement": "ray"} in endpoint["relabelings"]
    assert config["global"]["scrape_interval"] == endpoint["interval"] == "15s"
    rename = job["metric_relabel_configs"][0]
    assert re.fullmatch(rename["regex"], "ray_tessera_rows_total")[1] == "tessera_rows_total"
    assert re.fullmatch(rename["regex"], "ray_node_mem_used") is None


def test_the_pods_have_the_port_that_is_scraped() -> None:
    (endpoint,) = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    text = (ROOT / "infra" / "kuberay" / "base" / "cluster.yaml").read_text()
    (cluster,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "RayCluster"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        container = group["template"]["spec"]["containers"][0]
        assert endpoint["port"] in [port["name"] for port in container["ports"]]


def _snake(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{re.sub(r"[A-Z]", lambda one: f"_{one[0].lower()}", key): rule[key] for key in rule} for rule in rules]


def test_alerts_use_the_jobs_of_the_example() -> None:
    named = defaultdict(set)
    for name, alert in ALERTS.items():
        for jobs in re.findall(r'job=~?"([^"]+)"', alert["expr"]):
            named[name] |= set(jobs.split("|"))
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert set().union(*named.values()) <= {one["job_name"] for one in config["scrape_configs"]}
