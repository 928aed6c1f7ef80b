"""Checks every node of a cluster before a run: a worker that cannot work would end the run without its cause."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.errors import ConfigError, describe
from pipeline.engine.node_check import NodeCheck, NodeTask, Problem
from pipeline.stages.units import Unit

_ANSWER_S = 120.0
"""Longest wait for all nodes: each starts a worker process, and reads the checkpoints."""


def check_nodes(check: NodeCheck, unit: Unit) -> None:
    """Raises ``ConfigError`` with the name of a node that cannot do its part of a run.

    On a single machine, that of this process, only the declared GPUs are checked: the driver has checked the rest.

    Args:
        unit: the first unit of the plan.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if [node["NodeID"] for node in nodes] == [here]:
        problems = [(nodes[0], check.device_problem(_gpus(nodes[0])))]
    else:
        problems = _ask(check.on_driver(unit), nodes)
    found = [(node, problem) for node, problem in problems if problem is not None]
    if found:
        node, (where, what, allowed) = found[0]
        others = f" (and {len(found) - 1} other nodes)" if len(found) > 1 else ""
        raise ConfigError(where, f"node {_name(node)}{others}: {what}", allowed)


def _ask(data: NodeTask, nodes: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Problem | None]]:
    """Runs the check on all nodes at a time. A node that is lost, or a worker that dies, is no problem of the config:
    the run itself goes on after such losses."""
    task: Any = ray.remote(num_cpus=0, max_retries=2)(_looker())
    pickled = pickle.dumps(data, 5)
    asked = {
        task.options(
            name="preflight", scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(pickled, _gpus(node)): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    problems: list[tuple[dict[str, Any], Problem | None]] = []
    for reference in answered:
        try:
            problems.append((asked[reference], ray.get(reference)))
        except RayTaskError as error:  # of the task's code; others are of Ray
            problems.append((asked[reference], ("compute.address", describe(error.cause or error), "see Ray's logs")))
        except RayError:
            continue
    for reference in silent:
        ray.cancel(reference, force=True)
        problems.append(
            (asked[reference], ("compute.address", f"no answer within {_ANSWER_S:g} s", "a node that is up"))
        )
    return problems


def _looker() -> Callable[[bytes, float], Problem | None]:
    """Returns the function that runs on a node. Ray sends a nested function by its code, so that a node without the
    package can say so."""

    def preflight(data: bytes, gpus: float) -> tuple[str, str, str] | None:
        import pickle

        try:
            task = pickle.loads(data)
        except Exception as error:  # above all ModuleNotFoundError
            reason = f"it cannot import Tessera ({type(error).__name__}: {error})"
            return "compute.address", reason, "install Tessera and its requirements.lock there"
        problem: tuple[str, str, str] | None = task.problem(gpus)
        return problem

    return preflight


def _gpus(node: dict[str, Any]) -> float:
    return float(node["Resources"].get("GPU", 0))


def _name(node: dict[str, Any]) -> str:
    """Returns host and address of a node, as `ray status` and its logs name it."""
    host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return address if host in (address, "") else f"{host} ({address})"
