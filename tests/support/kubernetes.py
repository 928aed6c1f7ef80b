"""Manifests as a Kubernetes cluster would get them: rendered by kustomize, and checked against schemas.

`make tools` installs the programs into ``.tools``. Without them, tests that need them are skipped.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

KUBERAY = ROOT / "infra" / "kuberay"
OVERLAYS = tuple(sorted(path.name for path in (KUBERAY / "overlays").iterdir()))
SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"


def tool(name: str) -> str:
    """Returns the path of a program of ``.tools``, or of the PATH; skips the test if there is none."""
    own = ROOT / ".tools" / "bin" / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: run `make tools`")
    return found


@functools.cache
def rendered(overlay: str) -> str:
    """Returns what `kubectl apply -k` would send, as YAML."""
    folder = KUBERAY / overlay
    done = subprocess.run([tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns of what it will no longer take"
    return done.stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    """Returns the objects of an overlay."""
    return [one for one in yaml.load_all(rendered(overlay), Loader=yaml.CSafeLoader) if one]


def one(overlay: str, kind: str, name: str | None = None) -> dict[str, Any]:
    """Returns the only object of a kind, or the one of a name."""
    (found,) = [each for each in objects(overlay) if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def cluster_spec(overlay: str) -> dict[str, Any]:
    """Returns the cluster of an overlay, wherever it is: by itself, or in the job that starts it."""
    for each in objects(overlay):
        if each["kind"] == "RayCluster":
            return each["spec"]
        if each["kind"] == "RayJob":
            return each["spec"]["rayClusterSpec"]
        if each["kind"] == "RayCronJob":
            return each["spec"]["jobTemplate"]["rayClusterSpec"]
    raise AssertionError(f"{overlay} has no cluster")


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every template of a pod in an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        else:
            for inner in value.values():
                yield from pod_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_templates(inner)


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns all containers of a template of a pod, those that prepare it first."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


@functools.cache
def crd_schema(kind: str) -> dict[str, Any]:
    """Returns KubeRay's own schema of a kind. Unknown fields, which a cluster drops silently, are errors."""
    path = SCHEMAS / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"KubeRay's schemas not found at {SCHEMAS}: manifests of its kinds are not checked")
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)  # thousands of lines
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own schema, which CRDs leave out
    return schema


def strict(schema: Any) -> Any:
    """Returns a copy of a structural schema in which every object allows only its own fields."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: value if key in ("enum", "default", "required") else strict(value) for key, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and not is_open:
        copy["additionalProperties"] = False
    return copy


def save(overlay: str, folder: Path) -> Path:
    """Writes the objects of an overlay to a file, and its pods' templates as pods: KubeRay's kinds have them inside."""
    pods = []
    for each in objects(overlay):
        for number, template in enumerate(pod_templates(each)):
            metadata = {**template.get("metadata", {}), "name": f"{each['kind'].lower()}-{number}"}
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    path = folder / "objects.yaml"
    path.write_text(yaml.safe_dump_all([*objects(overlay), *pods]))
    return path
