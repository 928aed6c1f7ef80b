"""How many actors a pool gets, and the CPUs of one: none may stand where the tasks that feed it find no room.

Ray starts nothing that finds no room and waits for ever. So what can fit no node is refused, and an actor's share of
CPUs is such that actors fill no node, whichever of them Ray puts there: when a node is lost, its actors move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import PoolConfig
from pipeline.errors import ConfigError

_TASK, _SPARE = 5, 25
"""Hundredths of a CPU: a small task's, and what actors leave of a node on average."""
TASK_CPUS = _TASK / 100


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster offers."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Actors:
    """Size and resources of a pool."""

    least: int
    most: int
    num_cpus: float
    num_gpus: float


def sizes(pools: Mapping[str, PoolConfig], nodes: Sequence[Node], on_gpu: bool, blocks: int) -> dict[str, Actors]:
    """One actor per GPU, or per core on a host without.

    Args:
        on_gpu: decoding is then a task of its own and takes a whole CPU; the largest nodes keep one.
        blocks: of samples there are; more actors than that do not start at once.

    Raises:
        ConfigError: more CPUs or GPUs than the cluster has, or than any node of it.
    """
    cpus = sum(node.cpus for node in nodes)
    wanted = {name: float(on_gpu) if pool.num_gpus is None else pool.num_gpus for name, pool in pools.items()}
    counts = {}
    for name, pool in pools.items():
        _check_fits(name, pool, wanted[name], nodes)
        most = pool.max_actors or max(1, _per_gpu(wanted[name], nodes) if wanted[name] else int(cpus))
        counts[name] = min(pool.min_actors or min(most, max(1, blocks)), most), most
    largest = max(node.cpus for node in nodes)
    if on_gpu and largest < 2:
        raise ConfigError(
            "compute.pools",
            f"nodes of {largest:g} CPU",
            "beside a GPU decoding takes a whole CPU: nodes of 2 or more, or num_gpus: 0 and encoders with device: cpu",
        )
    keeps = {node: 100 if on_gpu and node.cpus == largest else _TASK for node in nodes}
    spare = sum(max(_SPARE, keeps[node]) for node in nodes)
    declared = sum(counts[name][1] * pool.num_cpus for name, pool in pools.items() if pool.num_cpus is not None)
    free = sum(counts[name][1] for name, pool in pools.items() if pool.num_cpus is None)
    left = 100 * (cpus - declared) - spare
    largest_share = min(100, math.floor(left / max(1, free) + 1e-6))

    def room_stays(share: int) -> bool:
        shares = {name: share if one.num_cpus is None else round(100 * one.num_cpus) for name, one in pools.items()}
        return all(_fullest(node, shares, counts, wanted) <= 100 * node.cpus - keep for node, keep in keeps.items())

    # where declared shares can fill a node whatever the others are, theirs is only what is left
    share = next((one for one in range(largest_share, 0, -1) if room_stays(one)), largest_share) if free else 0
    found = {
        name: Actors(*counts[name], (pool.num_cpus if pool.num_cpus is not None else share / 100), wanted[name])
        for name, pool in pools.items()
    }
    if left < -1e-6 or (free and share <= 0):
        told = ", ".join(
            f"{name}: {one.most} actors" + (f" of {one.num_cpus:g} CPUs" if pools[name].num_cpus is not None else "")
            for name, one in found.items()
        )
        raise ConfigError(
            "compute.pools",
            f"{told}, on {cpus:g} CPUs",
            f"leave {spare / 100:g} to the tasks that feed them: fewer actors, or a smaller num_cpus",
        )
    return found


def _check_fits(name: str, pool: PoolConfig, gpus: float, nodes: Sequence[Node]) -> None:
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


def _per_gpu(gpus: float, nodes: Sequence[Node]) -> int:
    return sum(int(node.gpus / gpus + 1e-9) for node in nodes)


def _fullest(
    node: Node, shares: Mapping[str, int], counts: Mapping[str, tuple[int, int]], gpus: Mapping[str, float]
) -> int:
    """Hundredths of a CPU that actors can take of a node at most, whichever of them stand there."""
    room = int(100 * node.cpus + 1e-6)
    sums, within = 1, (1 << (room + 1)) - 1  # bit i: some choice of actors takes i
    for name, share in shares.items():
        most = min(counts[name][1], room // max(1, share))
        for _ in range(min(most, int(node.gpus / gpus[name] + 1e-9)) if gpus[name] else most):
            sums |= sums << share & within
    return sums.bit_length() - 1
