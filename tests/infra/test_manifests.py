"""Every overlay is rendered by kustomize, and is valid against the schemas of Kubernetes and of KubeRay."""

from __future__ import annotations

import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray

from tests.support.kubernetes import (
    KUBERAY,
    OVERLAYS,
    cluster_spec,
    containers,
    crd_schema,
    objects,
    one,
    pod_templates,
    save,
    tool,
)

ALL = ["base", *(f"overlays/{name}" for name in OVERLAYS)]
KINDS = {
    "overlays/dev": "RayCluster",
    "overlays/production": "RayCluster",
    "overlays/production-one-run": "RayJob",
    "overlays/production-ray-cron-job": "RayCronJob",
}
OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes: in the first, podFailurePolicy became stable."""


def test_each_overlay_has_the_kind_that_runs_it() -> None:
    assert {f"overlays/{name}" for name in OVERLAYS} == set(KINDS)
    for overlay, kind in KINDS.items():
        found = {each["kind"] for each in objects(overlay)}
        assert found & {"RayCluster", "RayJob", "RayCronJob"} == {kind}
        assert ("CronJob" in found) == (kind == "RayCluster"), "a cluster that stays has a schedule of its own"


@pytest.mark.parametrize("overlay", ALL)
def test_kuberays_kinds_are_valid_against_its_own_schemas(overlay: str) -> None:
    ours = [each for each in objects(overlay) if each["apiVersion"] == "ray.io/v1"]
    assert ours
    for each in ours:
        problems = _problems(each)
        assert problems == []


def _problems(found: dict[str, Any]) -> list[str]:
    schema = crd_schema(found["kind"])
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(found)
    ]


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayCronJob"])
def test_a_field_that_kuberay_does_not_know_is_an_error(kind: str) -> None:
    (overlay,) = [name for name, each in KINDS.items() if each == kind and name != "overlays/dev"]
    good = one(overlay, kind)
    for path in (["spec"], ["headGroupSpec"], ["headGroupSpec", "template", "spec"], ["autoscalerOptions"]):
        wrong = deepcopy(good)
        place = _cluster_of(wrong) if path != ["spec"] else wrong
        for key in path:
            place = place[key]
        place["minReplica"] = 1
        assert any("minReplica" in problem for problem in _problems(wrong)), path
    wrong = deepcopy(good)
    _cluster_of(wrong)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = (
        "many"
    )
    assert _problems(wrong)


def _cluster_of(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", ALL)
def test_objects_and_pods_are_valid_against_kubernetes_schemas(overlay: str, version: str, tmp_path: Path) -> None:
    done = _validated(save(overlay, tmp_path), version)
    assert done.returncode == 0, done.stdout + done.stderr
    unchecked = [line for line in done.stdout.splitlines() if line.startswith("WARN")]
    assert len(unchecked) == 1, "all but KubeRay's own kind has a schema"
    assert done.stdout.count("INFO") == len(objects(overlay)) - 1 + sum(1 for _ in pod_templates(objects(overlay)))


def test_a_field_that_kubernetes_does_not_know_is_an_error(tmp_path: Path) -> None:
    path = save("overlays/production", tmp_path)
    assert "concurrencyPolicy:" in path.read_text()
    path.write_text(path.read_text().replace("concurrencyPolicy:", "concurencyPolicy:"))
    assert "concurencyPolicy" in _validated(path, NEWEST).stdout


def _validated(path: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [tool("kubernetes-validate"), "--strict", "-k", version, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_cluster_of_a_job_is_the_cluster_of_production() -> None:
    expected = cluster_spec("overlays/production")
    assert cluster_spec("overlays/production-one-run") == expected
    assert cluster_spec("overlays/production-ray-cron-job") == expected
    job, night = one("overlays/production-one-run", "RayJob"), one("overlays/production-ray-cron-job", "RayCronJob")
    assert night["spec"]["jobTemplate"] == job["spec"]


@pytest.mark.parametrize("overlay", ALL)
def test_every_object_is_in_the_namespace(overlay: str) -> None:
    for each in objects(overlay):
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "tessera", each["metadata"]["name"]


@pytest.mark.parametrize("overlay", ALL)
def test_no_object_holds_a_secret(overlay: str) -> None:
    """Secrets are referred to by name; what is set by value looks like none."""
    from pipeline.core.redaction import has_secret, is_secret_assignment

    assert not [each for each in objects(overlay) if each["kind"] == "Secret"]
    for template in pod_templates(objects(overlay)):
        for container in containers(template):
            for variable in container.get("env", []):
                if "value" in variable and variable["name"] != "RAY_AUTH_MODE":
                    assert not is_secret_assignment(variable["name"], variable["value"]), variable["name"]
            assert not any(has_secret(word) for word in container.get("command", []))


@pytest.mark.parametrize("overlay", ALL)
def test_pods_have_no_rights_that_they_do_not_need(overlay: str) -> None:
    """The profile `restricted` of Kubernetes' pod security standards, which the namespace enforces, and more."""
    assert one(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    contexts = []
    for template in pod_templates(objects(overlay)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod["volumes"])
        contexts += [container["securityContext"] for container in containers(template)]
    contexts.append(cluster_spec(overlay)["autoscalerOptions"]["securityContext"])
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", ALL)
def test_only_the_head_gets_a_token_of_the_kubernetes_api(overlay: str) -> None:
    accounts = {each["metadata"]["name"]: each for each in objects(overlay) if each["kind"] == "ServiceAccount"}
    without = {name for name, each in accounts.items() if each.get("automountServiceAccountToken") is False}
    assert without == set(accounts) - {"tessera-head"}
    for template in pod_templates(objects(overlay)):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        assert template["spec"]["serviceAccountName"] == f"tessera-{component}"


@pytest.mark.parametrize("overlay", ALL)
def test_no_node_is_emptied_under_a_run(overlay: str) -> None:
    cluster = cluster_spec(overlay)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        annotations = group["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"


@pytest.mark.parametrize("overlay", ALL)
def test_ray_measures_disks_in_pods(overlay: str) -> None:
    """Else its agents report a disk that is always free. The installed Ray reads this variable."""
    variable = "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE"
    agent = Path(ray.__file__).parent / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
    assert f'os.environ.get("{variable}") == "1"' in agent.read_text()
    cluster = cluster_spec(overlay)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert {"name": variable, "value": "1"} in container["env"]


@pytest.mark.parametrize("overlay", ALL)
def test_the_head_knows_where_lineage_goes_if_there_is_a_secret(overlay: str) -> None:
    (head,) = cluster_spec(overlay)["headGroupSpec"]["template"]["spec"]["containers"]
    read = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in head["env"] if "LINEAGE" in each["name"]}
    assert {name: each["key"] for name, each in read.items()} == {
        "OPENLINEAGE_URL": "url",
        "OPENLINEAGE_API_KEY": "api_key",
    }
    assert all(each["optional"] is True for each in read.values()), "without the secret the pod starts all the same"
    workers = [
        each for group in cluster_spec(overlay)["workerGroupSpecs"] for each in group["template"]["spec"]["containers"]
    ]
    assert not [one for each in workers for one in each["env"] if "valueFrom" in one], "code of media may read them"


def test_production_has_a_role_and_no_keys() -> None:
    roles = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        for each in objects("overlays/production")
        if each["kind"] == "ServiceAccount"
    }
    assert roles["tessera-head"] == roles["tessera-worker"]
    assert str(roles["tessera-head"]).startswith("arn:aws:iam::")
    assert roles["tessera-submitter"] is None
    text = "".join(path.read_text() for path in (KUBERAY / "overlays" / "production").iterdir())
    assert "AWS_" not in text
