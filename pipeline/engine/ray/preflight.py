"""Checks every node of a cluster before a run: a worker that cannot work would end the run without its cause."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.errors import ConfigError, describe
from pipeline.engine.node_check import NodeCheck, NodeTask, Problem
from pipeline.engine.ray.late_check import LateCheck
from pipeline.engine.ray.nodes import living, node_name
from pipeline.stages.units import Unit, read_unit, unit_table

_ANSWER_S = 120.0
"""Longest wait for all nodes: each starts a worker process, and reads the checkpoints."""
_BYTES_PER_S = 5e6
"""Slowest rate at which a node may fetch checkpoints."""


def check_nodes(check: NodeCheck, unit: Unit, is_cluster: bool) -> LateCheck | None:
    """Checks all nodes, and returns the check of those that join later; None: none can.

    On a single machine, that of this process, only the declared GPUs are checked: the driver has checked the rest.

    Args:
        unit: the first unit of the plan, which the driver has just written.
        is_cluster: nodes may join during the run.

    Raises:
        ConfigError: a node cannot do its part of the run. The error has its name.
    """
    nodes = _nodes()
    ids = frozenset(node["NodeID"] for node in nodes)
    task = check.on_driver(read_unit(unit_table(unit)), unit[0]) if is_cluster else None
    if task is None or ids == {ray.get_runtime_context().get_node_id()}:
        problems = [(node_name(node), check.device_problem(_gpus(node))) for node in nodes]
    else:
        problems = ask_nodes(task, ids)
    found = [(node, problem) for node, problem in problems if problem is not None]
    if found:
        node, (where, what, allowed) = found[0]
        others = f" (and {len(found) - 1} other nodes)" if len(found) > 1 else ""
        raise ConfigError(where, f"node {node}{others}: {what}", allowed)
    return None if task is None else LateCheck(task, ids)


def any_device() -> bool:
    """Returns whether a node that declares GPUs has a device, or does not answer."""
    task: Any = ray.remote(num_cpus=0, max_retries=2)(_device_looker())
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in _nodes()
        if _gpus(node)
    ]
    answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)
    found = bool(silent)
    for reference in answered:
        try:
            found = found or ray.get(reference)
        except RayError:
            found = True
    return found


def task_of(check: NodeCheck, unit: Unit) -> NodeTask:
    """Returns the task of a check for a run whose plan begins with ``unit``."""
    return check.on_driver(read_unit(unit_table(unit)), unit[0])


def _nodes() -> list[dict[str, Any]]:
    """Returns the living nodes with a CPU, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def ask_nodes(data: NodeTask, only: Collection[str] | None = None) -> list[tuple[str, Problem | None]]:
    """Runs the check on all nodes at a time. Returns the name of each node, and what it lacks; None: nothing.

    A node that is lost meanwhile is left out: the run itself goes on after such losses.

    Args:
        only: ids of the nodes to ask. None: all.
    """
    nodes = [node for node in _nodes() if only is None or node["NodeID"] in only]
    patience_s = _ANSWER_S + data.fetched_bytes / _BYTES_PER_S
    task: Any = ray.remote(num_cpus=0, max_retries=2)(_looker())
    pickled = pickle.dumps(data, 5)
    asked = {
        task.options(
            name="preflight", scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(pickled, _gpus(node)): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=patience_s)
    problems: list[tuple[str, Problem | None]] = []
    for reference in answered:
        try:
            problems.append((node_name(asked[reference]), ray.get(reference)))
        except RayTaskError as error:  # of the task's code; others are of Ray
            problems.append(
                (node_name(asked[reference]), ("compute.address", describe(error.cause or error), "see Ray's logs"))
            )
        except RayError as error:  # of a worker: its environment, its memory
            if asked[reference]["NodeID"] in living():
                problem = "compute.address", describe(error), "see Ray's logs of that node"
                problems.append((node_name(asked[reference]), problem))
    for reference in silent:
        ray.cancel(reference, force=True)
        problem = "compute.address", f"no answer within {patience_s:.0f} s", "a node that is up"
        problems.append((node_name(asked[reference]), problem))
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


def _device_looker() -> Callable[[], bool]:
    def look_for_device() -> bool:
        from pipeline.core.system.devices import has_gpu

        return has_gpu()

    return look_for_device


def _gpus(node: dict[str, Any]) -> float:
    return float(node["Resources"].get("GPU", 0))
