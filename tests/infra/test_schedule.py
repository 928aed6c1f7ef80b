"""The schedules: the command line that runs each night, its exit codes, and its times."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import pipeline
from jobs import _console
from tests.infra.commands import parse
from tests.support import ROOT
from tests.support.kubernetes import cluster_spec, one
from tests.support.ray_cluster import RayCluster

SCHEDULED = ["overlays/dev", "overlays/production"]
SECONDS = {"s": 1, "m": 60, "h": 3600}


def _seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()
    return int(number) * SECONDS[unit]


def _job(overlay: str) -> dict[str, Any]:
    return one(overlay, "CronJob")["spec"]["jobTemplate"]["spec"]


def _submitter(overlay: str) -> dict[str, Any]:
    (found,) = _job(overlay)["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_the_command_is_one_that_tessera_parses(overlay: str) -> None:
    name, values = parse(_submitter(overlay)["command"])
    assert (name, values["nightly"], values["installed"]) == ("submit", True, True)
    assert values["as_json"] is True, "the summary must be in the pod's log: its disk is lost with it"
    mounts = {mount["mountPath"]: mount["name"] for mount in _submitter(overlay)["volumeMounts"]}
    folder, _, file = values["config"].rpartition("/")
    assert file in one(overlay, "ConfigMap")["data"]
    volumes = {volume["name"]: volume for volume in _job(overlay)["template"]["spec"]["volumes"]}
    assert volumes[mounts[folder]]["configMap"]["name"] == one(overlay, "ConfigMap")["metadata"]["name"]


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_it_submits_to_the_cluster_of_the_overlay_with_its_token(overlay: str) -> None:
    _, values = parse(_submitter(overlay)["command"])
    cluster = one(overlay, "RayCluster")["metadata"]["name"]
    address = urlsplit(values["address"])
    (dashboard,) = [
        port["containerPort"]
        for port in cluster_spec(overlay)["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
        if port["name"] == "dashboard"
    ]
    assert (address.scheme, address.hostname, address.port) == ("http", f"{cluster}-head-svc", dashboard)
    assert cluster_spec(overlay)["authOptions"] == {"mode": "token"}
    environment = {each["name"]: each for each in _submitter(overlay)["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_each_exit_code_has_its_consequence(overlay: str) -> None:
    job = _job(overlay)
    assert job["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy requires it"
    consequences = {code: _consequence(job, code) for code in range(1, 6)}
    never = {_console.EXIT_ABORTED, _console.EXIT_CONFIG, _console.EXIT_BUDGET}
    assert {code for code, action in consequences.items() if action == "FailJob"} == never
    assert consequences[_console.EXIT_INTERRUPTED] == "Count"
    assert job["backoffLimit"] > 0
    assert one(overlay, "CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_the_submitter_can_call_the_webhook_of_the_head(overlay: str) -> None:
    """For a job that did not start. A secret that is not there prevents no pod."""
    (head,) = cluster_spec(overlay)["headGroupSpec"]["template"]["spec"]["containers"]
    found = [[one for one in each["env"] if "WEBHOOK" in one["name"]] for each in (head, _submitter(overlay))]
    assert found[0] == found[1]
    ((variable,), _) = found
    assert variable["valueFrom"]["secretKeyRef"]["optional"] is True


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_it_waits_for_a_head_that_starts_again(overlay: str) -> None:
    """A submission without an answer ends with code 4: without the wait, a head that starts would cost all tries."""
    (waiting,) = _job(overlay)["template"]["spec"]["initContainers"]
    limit, program, _, script = waiting["command"][1:]
    found = re.fullmatch(r"until (tessera .*); do sleep \d+; done", script)
    _, values = parse(_submitter(overlay)["command"])
    assert (waiting["command"][0], program) == ("timeout", "bash")
    assert found
    assert found[1] == f"tessera jobs list --address {values['address']}"
    names = [each["name"] for each in waiting["env"]]
    assert waiting["env"] == [each for each in _submitter(overlay)["env"] if each["name"] in names]
    assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {*names}
    assert 600 <= int(limit) <= 3600
    codes = [rule["onExitCodes"] for rule in _job(overlay)["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert waiting["name"] not in [each["containerName"] for each in codes], "it counts, and is tried again"


def test_the_readme_says_what_each_code_does() -> None:
    text = (ROOT / "infra" / "README.md").read_text()
    said = {}
    for codes, consequence in re.findall(r"^\| ((?:\d: [^|]+)+)\| ([^|]+) \|$", text, flags=re.M):
        said |= {int(code): consequence for code in re.findall(r"(\d): ", codes)}
    policy = {code: _consequence(_job("overlays/production"), code) for code in range(1, 5)}
    assert {code: "fails at once" in words for code, words in said.items()} == {
        code: action == "FailJob" for code, action in policy.items()
    }
    operating = (ROOT / "docs" / "operating.md").read_text()
    (codes,) = re.findall(r"^\| exit codes (.+?) \| the Job fails for good", operating, flags=re.M)
    assert {int(code) for code in re.findall(r"\d", codes)} == {
        c for c, action in policy.items() if action == "FailJob"
    }


def _consequence(job: dict[str, Any], code: int) -> str:
    """The first rule that fits decides; without one a failure counts towards backoffLimit, and the pod is replaced."""
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            assert codes["containerName"] == job["template"]["spec"]["containers"][0]["name"]
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("overlay", SCHEDULED)
def test_all_tries_of_a_night_end_before_the_next_one(overlay: str) -> None:
    """The deadline counts from the start of each try, the wait included; then it commits, compacts and vacuums."""
    job = _job(overlay)
    _, values = parse(_submitter(overlay)["command"])
    assert _seconds(values["wait"]) < _seconds(values["deadline"])
    try_s = int(job["template"]["spec"]["initContainers"][0]["command"][1]) + _seconds(values["deadline"]) + 3600
    assert (job["backoffLimit"] + 1) * try_s <= job["activeDeadlineSeconds"] < 24 * 3600
    schedule = one(overlay, "CronJob")["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["schedule"]), "once a day"
    assert schedule["startingDeadlineSeconds"] > 0
    assert schedule["successfulJobsHistoryLimit"] >= 7


def test_only_dev_is_suspended() -> None:
    assert one("overlays/dev", "CronJob")["spec"]["suspend"] is True
    assert "suspend" not in one("overlays/production", "CronJob")["spec"]


def test_the_job_of_kuberay_runs_the_same_night() -> None:
    job = one("overlays/production-one-run", "RayJob")["spec"]
    name, values = parse(job["entrypoint"])
    _, submitted = parse(_submitter("overlays/production")["command"])
    assert (name, values["engine"], values["as_json"]) == ("nightly", "ray", True)
    assert (values["config"], values["deadline"]) == (submitted["config"], submitted["deadline"])
    assert job["metadata"]["tessera"] == pipeline.__version__
    assert job["backoffLimit"] == 0, "KubeRay does not see exit codes"
    assert job["shutdownAfterJobFinishes"] is True
    assert job["activeDeadlineSeconds"] > _seconds(values["deadline"])
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert values["config"].rpartition("/")[0] in [mount["mountPath"] for mount in head["volumeMounts"]]
    night, cron = one("overlays/production-ray-cron-job", "RayCronJob"), one("overlays/production", "CronJob")
    assert night["spec"]["schedule"] == cron["spec"]["schedule"]
    assert night["spec"]["timeZone"] == cron["spec"]["timeZone"]


@pytest.mark.slow
def test_the_command_of_the_cronjob_runs_on_a_cluster(tmp_path: Path, models: Path, demo_corpus: Path) -> None:
    """On a cluster whose nodes have Tessera installed, and a token: only the config and the address are others."""
    config = tmp_path / "nightly.yaml"
    picture = yaml.safe_load(one("overlays/dev", "ConfigMap")["data"]["nightly.yaml"])
    picture["source"]["path"], picture["output"]["path"] = str(demo_corpus / "drawings"), str(tmp_path / "out")
    picture["features"]["picture"]["encoder"]["checkpoint"] = str(models / "clip")
    picture["storage"] = {}
    config.write_text(yaml.safe_dump(picture))
    with RayCluster(tmp_path, sys.executable, dashboard=True) as cluster:
        cluster.add(cpus=2)
        command = list(_submitter("overlays/dev")["command"])
        command[command.index("/etc/tessera/nightly.yaml")] = str(config)
        command[command.index("--address") + 1] = f"http://{cluster.dashboard}"
        process = cluster.tessera(*command[1:])
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert (json.loads(output)["status"], json.loads(output)["exit_code"]) == ("complete", 0)
    assert re.search(r"^job \w+ on http", errors, flags=re.M), "the log goes to the other stream"
    shown = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "inspect", str(tmp_path / "out"), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert yaml.safe_load(shown.stdout)["rows"] > 0
