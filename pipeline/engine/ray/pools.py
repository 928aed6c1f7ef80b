"""How many actors a pool gets, and the CPUs of one: none may stand where the tasks that feed it find no room.

Ray starts nothing that finds no room and waits for ever. So what can fit no node is refused, and an actor's share of
CPUs is such that actors fill no node, whichever of them Ray puts there: when a node is lost, its actors move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.core.errors import ConfigError
from pipeline.engine.spec import WorkersSpec

_PARTS = 8
"""Into so many parts pools divide a GPU at most, unless they say how."""
_LITTLE = 1e-9
_TASK, _SPARE = 5, 25
"""Hundredths of a CPU: a small task's, and what actors leave of a node on average."""
TASK_CPUS = _TASK / 100


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster offers."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class PoolSize:
    """Size and resources of a pool."""

    least: int
    most: int
    num_cpus: float
    num_gpus: float


def sizes(pools: Mapping[str, WorkersSpec], nodes: Sequence[Node], on_gpu: bool, blocks: int) -> dict[str, PoolSize]:
    """One actor per GPU, or per core on a host without. Pools that say nothing share the GPUs.

    Args:
        on_gpu: decoding is then a task of its own and takes a whole CPU; the largest nodes keep one.
        blocks: of samples there are; more actors than that do not start at once.

    Raises:
        ConfigError: more CPUs or GPUs than the cluster has, or than any node of it; or not one actor of each pool
            finds room.
    """
    cpus = sum(node.cpus for node in nodes)
    wanted = _gpus(pools, nodes, on_gpu)
    for name, pool in pools.items():
        _check_fits(name, pool, wanted[name], nodes)
    asked = {name: _Asked(pool.num_cpus or 0.0, wanted[name], pool.max_workers or 1) for name, pool in pools.items()}
    if not _fits_once(asked, nodes) or not _always_fits(asked, nodes):
        told = ", ".join(
            f"{name}: {one.most} of {one.gpus:g} GPUs and {one.cpus:g} CPUs" for name, one in asked.items()
        )
        raise ConfigError(
            "compute.pools",
            f"{told}; wherever Ray puts them, not each pool is sure to find room for an actor",
            "a smaller num_gpus, num_cpus or max_actors, or fewer pools",
        )
    at_most = _at_most(pools, asked, nodes)
    counts = {}
    for name, pool in pools.items():
        most = pool.max_workers or max(1, at_most[name] if wanted[name] else int(cpus))
        counts[name] = min(pool.min_workers or min(most, max(1, blocks)), most), most
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
        asked = {name: _Asked(shares[name] / 100, wanted[name], counts[name][1]) for name in pools}
        return _always_fits(asked, nodes) and all(
            _fullest(node, shares, counts, wanted) <= 100 * node.cpus - keep for node, keep in keeps.items()
        )

    # where declared shares can fill a node whatever the others are, theirs is only what is left
    share = next((one for one in range(largest_share, 0, -1) if room_stays(one)), largest_share) if free else 0
    found = {
        name: PoolSize(*counts[name], (pool.num_cpus if pool.num_cpus is not None else share / 100), wanted[name])
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


def _check_fits(name: str, pool: WorkersSpec, gpus: float, nodes: Sequence[Node]) -> None:
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


def without_room(pools: Mapping[str, PoolSize], nodes: Sequence[Node], on_gpu: bool) -> str | None:
    """Name of a pool that does not find room for one actor, beside one of each other, on empty nodes."""
    asked = {name: _Asked(one.num_cpus, one.num_gpus, 1) for name, one in pools.items()}
    decoding = {"": _Asked(1.0, 0.0, 1)} if on_gpu else {}
    if _fits_once({**asked, **decoding}, nodes):
        return None
    alone = (name for name, one in asked.items() if not _fits_once({name: one, **decoding}, nodes))
    return next(alone, max(asked, key=lambda name: (asked[name].gpus, asked[name].cpus)))


@dataclass(frozen=True)
class _Asked:
    """CPUs and GPUs of an actor of a pool, and how many there are at most."""

    cpus: float
    gpus: float
    most: int

    @property
    def devices(self) -> int:
        """On how many an actor stands."""
        return math.ceil(self.gpus - _LITTLE)


def _gpus(pools: Mapping[str, WorkersSpec], nodes: Sequence[Node], on_gpu: bool) -> dict[str, float]:
    """GPUs of an actor of each pool: what is declared, else a whole one, or such a part that all find room."""
    for parts in range(1, _PARTS + 1):
        share = float(on_gpu) / parts
        found = {name: share if pool.num_gpus is None else pool.num_gpus for name, pool in pools.items()}
        asked = {name: _Asked(pool.num_cpus or 0.0, found[name], pool.max_workers or 1) for name, pool in pools.items()}
        if not on_gpu or (_fits_once(asked, nodes) and _always_fits(asked, nodes)):
            return found
    return {name: float(on_gpu) if pool.num_gpus is None else pool.num_gpus for name, pool in pools.items()}


class _Gpus:
    """What is free of each device of each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.free = [[1.0] * int(node.gpus) for node in nodes]

    def take(self, node: int, one: _Asked) -> bool:
        """On one device; of more than one GPU, on as many that are wholly free."""
        devices, share = self.free[node], min(one.gpus, 1.0)
        found = [i for i, free in enumerate(devices) if free >= share - _LITTLE][: one.devices]
        if len(found) < one.devices:
            return False
        for i in found:
            devices[i] -= share
        return True


def _fits_once(asked: Mapping[str, _Asked], nodes: Sequence[Node]) -> bool:
    """Whether one actor of every pool finds room at once, if the largest are placed first."""
    free, cpus = _Gpus(nodes), [node.cpus for node in nodes]
    for one in sorted(asked.values(), key=lambda one: (one.gpus, one.cpus), reverse=True):
        order = sorted(range(len(nodes)), key=lambda i: (nodes[i].gpus, cpus[i]))
        node = next((i for i in order if cpus[i] >= one.cpus - _LITTLE and free.take(i, one)), None)
        if node is None:
            return False
        cpus[node] -= one.cpus
    return True


def _always_fits(asked: Mapping[str, _Asked], nodes: Sequence[Node]) -> bool:
    """Whether every pool is sure of room for an actor, wherever Ray puts all those of the others.

    Of each node: how many of the others' devices, or actors, it takes to leave no room there. If all of them together
    are fewer than it takes on all nodes, there is room on some.
    """
    for name, one in asked.items():
        others = [other for key, other in asked.items() if key != name and other.gpus + other.cpus > 0]
        there = sum(other.most * max(1, other.devices) for other in others)
        needed = 0
        for node in nodes:
            if node.gpus < one.gpus - _LITTLE or node.cpus < one.cpus - _LITTLE:
                continue
            ways = [there + 1]
            if one.gpus and any(other.gpus for other in others):
                a_device = 1 + int(max(0.0, 1.0 - one.gpus) / max(min(other.gpus, 1.0) for other in others) + _LITTLE)
                ways.append((int(node.gpus) - one.devices + 1) * a_device)
            if one.cpus and (largest := max((other.cpus for other in others), default=0.0)):
                ways.append(1 + int((node.cpus - one.cpus) / largest + _LITTLE))
            needed += min(ways)
        if there >= needed:
            return False
    return True


def _at_most(pools: Mapping[str, WorkersSpec], asked: Mapping[str, _Asked], nodes: Sequence[Node]) -> dict[str, int]:
    """Actors of the pools that take GPUs: in turn one more of each that does not say how many, as long as there is
    room for it, and room for one of every other pool stays sure."""
    free = _Gpus(nodes)
    named = {name: asked[name] for name in sorted(asked, key=lambda name: asked[name].gpus, reverse=True)}
    named = {name: one for name, one in named.items() if one.gpus}

    def placed(one: _Asked) -> bool:
        return any(free.take(i, one) for i in range(len(nodes)))

    for one in named.values():
        for _ in range(one.most):
            placed(one)
    growing = [name for name in named if pools[name].max_workers is None]
    while growing:
        for name in list(growing):
            more = {**named, name: replace(named[name], most=named[name].most + 1)}
            if _always_fits({**asked, **more}, nodes) and placed(named[name]):
                named = more
            else:
                growing.remove(name)
    return {name: one.most for name, one in named.items()}


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
