"""How many actors a pool has, and their CPUs and GPUs, so that the tasks that feed them always have room.

Ray never starts what does not fit, and waits for ever. So what fits on no node is refused here. The CPUs of an actor
are chosen so that actors fill no node, wherever Ray places them: when a node is lost, its actors move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.errors import ConfigError
from pipeline.engine.ray._placement import Demand, Node, always_fits, fits_once, fullest_node, most_actors
from pipeline.engine.spec import WorkersSpec

__all__ = ["TASK_CPUS", "Node", "PoolSize", "sizes", "without_room"]

_PARTS = 8
"""Most parts that pools divide a GPU into by default."""
_TASK, _SPARE = 5, 25
"""Hundredths of a CPU: of a small task, and what actors leave free of a node on average."""
TASK_CPUS = _TASK / 100


@dataclass(frozen=True)
class PoolSize:
    """Fewest and most actors of a pool on the nodes that are there, and the CPUs and GPUs of each."""

    least: int
    most: int
    num_cpus: float
    num_gpus: float
    grows: bool = False
    """Whether nodes that join later get further actors."""


def sizes(
    pools: Mapping[str, WorkersSpec],
    nodes: Sequence[Node],
    shares_gpus: bool,
    task_cpus: float,
    blocks: int,
    is_cluster: bool = False,
) -> dict[str, PoolSize]:
    """Returns the size of each pool: one actor per GPU, or per core on hosts without. Pools share GPUs by default.

    Args:
        pools: the pools as configured.
        nodes: the nodes of the cluster.
        shares_gpus: pools that declare no GPUs share those of the nodes.
        task_cpus: CPUs of the largest task. The largest nodes keep as many free of actors.
        blocks: number of blocks of samples. A pool starts with at most as many actors.
        is_cluster: nodes may join later. Pools without a declared number of actors grow onto them.

    Raises:
        ConfigError: pools ask for more CPUs or GPUs than the cluster, or any node of it, has; or there is not room for
            one actor of each pool.
    """
    cpus = sum(node.cpus for node in nodes)
    gpus = _gpus(pools, nodes, shares_gpus)
    counts = _counts(pools, nodes, gpus, blocks)
    largest = max(node.cpus for node in nodes)
    if task_cpus >= 1 and largest < task_cpus + 1:  # one for the task, one for actors
        raise ConfigError(
            "compute.pools",
            f"nodes of {largest:g} CPU",
            f"tasks take {task_cpus:g} CPU, next to actors on GPUs: larger nodes, or num_gpus: 0 and device: cpu",
        )
    needed = max(_TASK, round(100 * task_cpus))
    keeps = {node: needed if node.cpus == largest else _TASK for node in nodes}
    spare = sum(max(_SPARE, keeps[node]) for node in nodes)
    declared = sum(counts[name][1] * pool.num_cpus for name, pool in pools.items() if pool.num_cpus is not None)
    undeclared = sum(counts[name][1] for name, pool in pools.items() if pool.num_cpus is None)
    left = 100 * (cpus - declared) - spare
    share = _share(pools, counts, gpus, nodes, keeps, math.floor(left / max(1, undeclared) + 1e-6)) if undeclared else 0
    found = {
        name: PoolSize(
            *counts[name],
            pool.num_cpus if pool.num_cpus is not None else share / 100,
            gpus[name],
            is_cluster and pool.max_workers is None,
        )
        for name, pool in pools.items()
    }
    if left < -1e-6 or (undeclared and share <= 0):
        listed = ", ".join(
            f"{name}: {one.most} actors" + (f" of {one.num_cpus:g} CPUs" if pools[name].num_cpus is not None else "")
            for name, one in found.items()
        )
        raise ConfigError(
            "compute.pools",
            f"{listed}, on {cpus:g} CPUs",
            f"leave {spare / 100:g} to the tasks that feed them: fewer actors, or a smaller num_cpus",
        )
    return found


def _counts(
    pools: Mapping[str, WorkersSpec], nodes: Sequence[Node], gpus: Mapping[str, float], blocks: int
) -> dict[str, tuple[int, int]]:
    """Returns the fewest and most actors of each pool.

    Raises:
        ConfigError: an actor fits on no node, or there may be no room for one actor of each pool.
    """
    for name, pool in pools.items():
        _check_fits(name, pool, gpus[name], nodes)
    demands = {name: Demand(pool.num_cpus or 0.0, gpus[name], pool.max_workers or 1) for name, pool in pools.items()}
    if not fits_once(demands, nodes) or not always_fits(demands, nodes):
        listed = ", ".join(
            f"{name}: {one.most} of {one.gpus:g} GPUs and {one.cpus:g} CPUs" for name, one in demands.items()
        )
        raise ConfigError(
            "compute.pools",
            f"{listed}; wherever Ray puts them, not each pool is sure to find room for an actor",
            "a smaller num_gpus, num_cpus or max_actors, or fewer pools",
        )
    on_gpus = most_actors(pools, demands, nodes)
    cpus = sum(node.cpus for node in nodes)
    counts = {}
    for name, pool in pools.items():
        most = pool.max_workers or max(1, on_gpus[name] if gpus[name] else int(cpus))
        counts[name] = min(pool.min_workers or min(most, max(1, blocks)), most), most
    return counts


def _share(
    pools: Mapping[str, WorkersSpec],
    counts: Mapping[str, tuple[int, int]],
    gpus: Mapping[str, float],
    nodes: Sequence[Node],
    keeps: Mapping[Node, int],
    largest: int,
) -> int:
    """Returns the CPUs of an actor that declares none, in hundredths: the largest share that leaves room for tasks.

    Args:
        keeps: hundredths of a CPU that actors must leave free on each node.
        largest: an equal share of what declared CPUs leave. It is also the result if no share leaves room, since then
            the declared CPUs alone can fill a node.
    """

    def leaves_room(share: int) -> bool:
        shares = {name: share if one.num_cpus is None else round(100 * one.num_cpus) for name, one in pools.items()}
        demands = {name: Demand(shares[name] / 100, gpus[name], counts[name][1]) for name in pools}
        return always_fits(demands, nodes) and all(
            fullest_node(node, shares, counts, gpus) <= 100 * node.cpus - keep for node, keep in keeps.items()
        )

    most = min(100, largest)
    return next((one for one in range(most, 0, -1) if leaves_room(one)), most)


def _check_fits(name: str, pool: WorkersSpec, gpus: float, nodes: Sequence[Node]) -> None:
    """Raises ``ConfigError`` if an actor of the pool fits on no node."""
    has = max(node.gpus for node in nodes)
    if gpus > has:
        raise ConfigError(
            f"compute.pools.{name}.num_gpus", f"{gpus:g}", f"no node has more than {has:g} GPUs: at most as many"
        )
    has, asked = max(node.cpus for node in nodes if node.gpus >= gpus), pool.num_cpus or 0.0
    if asked > has:
        raise ConfigError(
            f"compute.pools.{name}.num_cpus", f"{asked:g}", f"no node for it has more than {has:g}: at most as many"
        )


def without_room(pools: Mapping[str, PoolSize], nodes: Sequence[Node], task_cpus: float) -> str | None:
    """Returns the name of a pool without room for an actor, if one actor of each pool does not fit on empty nodes.

    Args:
        task_cpus: CPUs of the largest task. One of a whole CPU or more must fit too.
    """
    demands = {name: Demand(one.num_cpus, one.num_gpus, 1) for name, one in pools.items()}
    task = {"": Demand(task_cpus, 0.0, 1)} if task_cpus >= 1 else {}
    if fits_once({**demands, **task}, nodes):
        return None
    misfits = (name for name, one in demands.items() if not fits_once({name: one, **task}, nodes))
    return next(misfits, max(demands, key=lambda name: (demands[name].gpus, demands[name].cpus)))


def _gpus(pools: Mapping[str, WorkersSpec], nodes: Sequence[Node], shares_gpus: bool) -> dict[str, float]:
    """Returns the GPUs of an actor of each pool: as declared, else 1, or the largest part with which all pools fit."""
    for parts in range(1, _PARTS + 1):
        share = float(shares_gpus) / parts
        found = {name: share if pool.num_gpus is None else pool.num_gpus for name, pool in pools.items()}
        demands = {
            name: Demand(pool.num_cpus or 0.0, found[name], pool.max_workers or 1) for name, pool in pools.items()
        }
        if not shares_gpus or (fits_once(demands, nodes) and always_fits(demands, nodes)):
            return found
    return {name: float(shares_gpus) if pool.num_gpus is None else pool.num_gpus for name, pool in pools.items()}
