"""What the nodes of a cluster have and did."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.engine.ray import nodes

NODES = [
    {"NodeID": "h", "Alive": True, "NodeManagerHostname": "head", "NodeManagerAddress": "10.0.0.1", "Resources": {}},
    {
        "NodeID": "a",
        "Alive": True,
        "NodeManagerHostname": "one",
        "NodeManagerAddress": "10.0.0.2",
        "Resources": {"CPU": 4.0, "GPU": 2.0, "accelerator_type:H100": 1.0},
    },
    {
        "NodeID": "b",
        "Alive": False,
        "NodeManagerHostname": "10.0.0.3",
        "NodeManagerAddress": "10.0.0.3",
        "Resources": {},
    },
    {"NodeID": "c", "Alive": False, "NodeManagerHostname": "old", "NodeManagerAddress": "10.0.0.4", "Resources": {}},
]


def test_nodes_that_compute_and_those_that_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.ray, "nodes", lambda: NODES)
    did = {"rows": 7, "processes": 2, "peak_memory_bytes": 9}
    found = nodes.describe(["a"], {"b": did})
    assert found == [
        {
            "name": "one (10.0.0.2)",
            "alive": True,
            "cpus": 4.0,
            "gpus": 2.0,
            "gpu_names": ["H100"],
            "rows": 0,
            "processes": 0,
            "peak_memory_bytes": 0,
        },
        {"name": "10.0.0.3", "alive": False, "cpus": 0.0, "gpus": 0.0, "gpu_names": [], **did},
    ]
    assert [node["name"] for node in nodes.describe(["a", "c"], {})] == ["one (10.0.0.2)", "old (10.0.0.4)"]
    assert nodes.living() == {"a": "one (10.0.0.2)"}
    assert [(one.cpus, one.gpus) for one in nodes.capacities()] == [(4.0, 2.0)]


def test_the_cluster_of_this_process(ray_session: Any) -> None:
    (node,) = nodes.describe([], {})
    assert (node["alive"], node["rows"]) == (True, 0)
    assert node["cpus"] == ray_session.cluster_resources()["CPU"]
    assert nodes.totals() == {"nodes": 1, "cpus": node["cpus"], "gpus": node["gpus"]}
    assert nodes.job_id() == ray_session.get_runtime_context().get_job_id()
