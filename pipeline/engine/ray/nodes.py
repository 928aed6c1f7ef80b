"""The nodes of the cluster that this process has joined: what they have, and what they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ray

from pipeline.engine.ray._placement import Node

_GPU_KIND = "accelerator_type:"
"""Beginning of the resource with which Ray names the kind of a node's GPUs."""


def capacities() -> list[Node]:
    """Returns the CPUs and GPUs of each living node."""
    return [
        Node(float(node["Resources"]["CPU"]), float(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"] and "CPU" in node["Resources"]
    ]


def living() -> dict[str, str]:
    """Returns id -> name of each living node with a CPU."""
    return {node["NodeID"]: node_name(node) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}


def describe(before: Iterable[str], done: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Returns the nodes with a CPU, and those that were there before or did something, as `Execution.nodes`.

    Args:
        before: ids of the nodes that were there when the run began.
        done: for the id of a node what it did: ``rows``, ``processes``, ``peak_memory_bytes``.
    """
    found, before = [], set(before)
    nothing = {"rows": 0, "processes": 0, "peak_memory_bytes": 0}
    for node in ray.nodes():
        resources, did = node["Resources"], done.get(node["NodeID"])
        if did is not None or node["NodeID"] in before or (node["Alive"] and resources.get("CPU")):
            kinds = [name.removeprefix(_GPU_KIND) for name in resources if name.startswith(_GPU_KIND)]
            described = {
                "name": node_name(node),
                "alive": bool(node["Alive"]),
                "cpus": float(resources.get("CPU", 0)),
                "gpus": float(resources.get("GPU", 0)),
                "gpu_names": sorted(kinds),
            }
            found.append({**described, **(did or nothing)})
    return found


def node_name(node: Mapping[str, Any]) -> str:
    """Returns host and address of a node, as `ray status` and its logs name it."""
    host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return str(address) if host in (address, "") else f"{host} ({address})"


def totals() -> dict[str, float] | None:
    """Returns the number of nodes, CPUs and GPUs of the cluster of this process. None: it has none."""
    if not ray.is_initialized():
        return None
    found = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return {"nodes": nodes, "cpus": float(found.get("CPU", 0)), "gpus": float(found.get("GPU", 0))}


def job_id() -> str:
    """Returns the id of this process's job in Ray."""
    return str(ray.get_runtime_context().get_job_id())
