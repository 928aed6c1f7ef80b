"""The objects of an overlay agree with one another, with their config, the lock file and the installed Ray."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline import config as configs
from pipeline.config.features import bind
from tests.support import ROOT
from tests.support.kubernetes import OVERLAYS, cluster_spec, containers, objects, one, pod_templates

ALL = ["base", *(f"overlays/{name}" for name in OVERLAYS)]
RUNNING = [f"overlays/{name}" for name in OVERLAYS]
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", quantity).groups()
    return int(number) * UNITS[unit]


def _groups(overlay: str) -> dict[str, dict[str, Any]]:
    """The head's group and those of workers, by name."""
    spec = cluster_spec(overlay)
    return {"head": spec["headGroupSpec"], **{one["groupName"]: one for one in spec["workerGroupSpecs"]}}


def _container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return found


def _config(overlay: str, folder: Path, *overrides: str) -> configs.PipelineConfig:
    path = folder / "nightly.yaml"
    path.write_text(one(overlay, "ConfigMap")["data"]["nightly.yaml"])
    return configs.load(str(path), list(overrides))


# -- versions and images -------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ALL)
def test_ray_is_the_one_of_the_lock_file(overlay: str) -> None:
    (pin,) = re.findall(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), flags=re.M)
    assert cluster_spec(overlay)["rayVersion"] == pin


@pytest.mark.parametrize("overlay", RUNNING)
def test_images_are_those_of_this_version(overlay: str) -> None:
    text = (ROOT / "infra" / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", text, flags=re.M))
    for template in pod_templates(objects(overlay)):
        for container in containers(template):
            name, _, tag = container["image"].rpartition(":")
            version, _, target = tag.partition("-")
            assert name.rpartition("/")[2] == "tessera"
            assert (version, target in targets) == (pipeline.__version__, True)
            assert target == ("cuda" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu")
    assert set(re.findall(r"tessera:(\S+)-(?:cpu|cuda)", text)) == {pipeline.__version__}


# -- the config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ALL)
def test_the_config_is_one_that_binds(overlay: str, tmp_path: Path, models: Path) -> None:
    raw = yaml.safe_load(one(overlay, "ConfigMap")["data"]["nightly.yaml"])
    local = [
        f"features.{name}.encoder.checkpoint={models / Path(feature['encoder']['checkpoint']).name}"
        for name, feature in raw["features"].items()
    ]
    assert [feature.name for feature in bind(_config(overlay, tmp_path, *local))] == list(raw["features"])


@pytest.mark.parametrize("overlay", ALL)
def test_paths_are_urls_that_every_pod_reaches(overlay: str, tmp_path: Path) -> None:
    config = _config(overlay, tmp_path)
    paths = [config.source.path, config.output.path, *(one.encoder.checkpoint for one in config.features.values())]
    assert [path for path in paths if not path.startswith("s3://")] == []
    ports = {
        port["port"] for rule in one(overlay, "NetworkPolicy", "storage")["spec"]["egress"] for port in rule["ports"]
    }
    endpoints = [bucket.endpoint_url for bucket in config.storage.s3.values() if bucket.endpoint_url]
    assert ({int(url.rpartition(":")[2]) for url in endpoints} or {443}) == ports


@pytest.mark.parametrize("overlay", ALL)
def test_the_gpus_that_pools_ask_for_are_those_of_the_workers(overlay: str, tmp_path: Path) -> None:
    config, groups = _config(overlay, tmp_path), _groups(overlay)
    gpus = {
        name: int(_container(group)["resources"]["limits"].get("nvidia.com/gpu", 0)) for name, group in groups.items()
    }
    asked = [pool.num_gpus for pool in config.compute.pools.values()]
    if not any(gpus.values()):
        assert not any(asked)
        return
    assert all(asked), "GPU nodes come from nothing only if the pools declare them"
    assert sum(asked) <= max(gpus.values())
    assert config.compute.missing_gpus == "refuse"
    assert config.compute.wait_for_nodes_s >= 600
    for name, count in gpus.items():
        pod = groups[name]["template"]["spec"]
        tolerated = [each["key"] for each in pod.get("tolerations", []) if each["effect"] == "NoSchedule"]
        assert tolerated == (["nvidia.com/gpu"] if count else [])
        assert not count or pod["nodeSelector"]


# -- Ray -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ALL)
def test_parameters_are_options_of_the_installed_ray(overlay: str) -> None:
    from ray.scripts.scripts import start

    options = {name.removeprefix("--") for parameter in start.params for name in parameter.opts}
    for group in _groups(overlay).values():
        assert set(group["rayStartParams"]) <= options
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("overlay", ALL)
def test_the_head_computes_nothing_and_workers_come_from_nothing(overlay: str) -> None:
    spec = cluster_spec(overlay)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        assert group["maxReplicas"] > 1
    for group in _groups(overlay).values():  # the operator refuses another one with this autoscaler
        assert group["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("overlay", ALL)
def test_memory_and_disk_have_room_for_what_is_put_there(overlay: str) -> None:
    for name, group in _groups(overlay).items():
        container, pod, parameters = _container(group), group["template"]["spec"], group["rayStartParams"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["memory"] == limits["memory"], "what is promised is what is used: no pod is evicted for memory"
        share = int(parameters["object-store-memory"]) / _bytes(limits["memory"])
        assert share == pytest.approx(0.25, abs=0.01) if name != "head" else 0.1 < share < 0.25
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        spill = parameters["object-spilling-directory"]
        assert spill.startswith("/scratch/")
        assert "medium" not in mounts["/scratch"]["emptyDir"], "on the node's disk"
        disk = sum(_bytes(each["emptyDir"]["sizeLimit"]) for each in volumes.values() if "emptyDir" in each)
        assert disk <= _bytes(requests["ephemeral-storage"]) < _bytes(limits["ephemeral-storage"])
        assert _bytes(mounts["/scratch"]["emptyDir"]["sizeLimit"]) >= int(parameters["object-store-memory"])


@pytest.mark.parametrize("overlay", ALL)
def test_what_programs_write_is_on_volumes(overlay: str) -> None:
    """The root is read-only: temporary files and the home folder must lie elsewhere."""
    for template in pod_templates(objects(overlay)):
        for container in containers(template):
            writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
            home = {variable["name"]: variable.get("value") for variable in container["env"]}["HOME"]
            assert "/tmp" in writable
            assert home in writable
    assert [each["mountPath"] for each in cluster_spec(overlay)["autoscalerOptions"]["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("overlay", ALL)
def test_probes_ask_what_ray_answers_without_a_token(overlay: str) -> None:
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    for group in _groups(overlay).values():
        for probe in ("readinessProbe", "livenessProbe"):
            asked = _container(group)[probe]["httpGet"]
            assert asked["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
            assert asked["path"] in PUBLIC_EXACT_PATHS


@pytest.mark.parametrize("overlay", ALL)
def test_ports_have_the_names_by_which_kuberay_finds_them(overlay: str) -> None:
    """Its service of the head has these ports; the policies allow the same."""
    from ray._private import ray_constants

    ports = {port["name"]: port["containerPort"] for port in _container(_groups(overlay)["head"])["ports"]}
    assert ports["dashboard"] == ray_constants.DEFAULT_DASHBOARD_PORT
    assert ports["gcs-server"] == ray_constants.DEFAULT_PORT
    policies = {each["metadata"]["name"]: each["spec"] for each in objects(overlay) if each["kind"] == "NetworkPolicy"}
    dashboard = {port["port"] for rule in policies["dashboard"]["ingress"] for port in rule["ports"]}
    submitter = {port["port"] for rule in policies["submitter"]["egress"] for port in rule["ports"]}
    assert dashboard == submitter == {ports["dashboard"]}
    metrics = {port["port"] for rule in policies["ray-nodes"]["ingress"] for port in rule.get("ports", [])}
    named = {
        port["containerPort"]
        for group in _groups(overlay).values()
        for port in _container(group)["ports"]
        if port["name"] == "metrics"
    }
    assert metrics == named
    exposed = re.findall(r"^EXPOSE (.*)$", (ROOT / "infra" / "Dockerfile").read_text(), flags=re.M)
    assert {int(port) for port in exposed[0].split()} == set(ports.values())
