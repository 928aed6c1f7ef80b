"""Whether actors fit on the nodes of a cluster, once or wherever Ray places them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.engine.spec import WorkersSpec

_EPSILON = 1e-9


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of a machine in the cluster."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Demand:
    """CPUs and GPUs of an actor of a pool, and the most actors that there are."""

    cpus: float
    gpus: float
    most: int

    @property
    def devices(self) -> int:
        """How many GPU devices an actor uses."""
        return math.ceil(self.gpus - _EPSILON)


class FreeGpus:
    """The free part of each GPU device of each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.free = [[1.0] * int(node.gpus) for node in nodes]

    def take(self, node: int, one: Demand) -> bool:
        """Places an actor on a node, on one device or on several free ones. Returns whether it fits."""
        devices, share = self.free[node], min(one.gpus, 1.0)
        found = [i for i, free in enumerate(devices) if free >= share - _EPSILON][: one.devices]
        if len(found) < one.devices:
            return False
        for i in found:
            devices[i] -= share
        return True


def fits_once(demands: Mapping[str, Demand], nodes: Sequence[Node]) -> bool:
    """Returns whether one actor of every pool fits, all at the same time, if the largest are placed first."""
    free, cpus = FreeGpus(nodes), [node.cpus for node in nodes]
    for one in sorted(demands.values(), key=lambda one: (one.gpus, one.cpus), reverse=True):
        order = sorted(range(len(nodes)), key=lambda i: (nodes[i].gpus, cpus[i]))
        node = next((i for i in order if cpus[i] >= one.cpus - _EPSILON and free.take(i, one)), None)
        if node is None:
            return False
        cpus[node] -= one.cpus
    return True


def always_fits(demands: Mapping[str, Demand], nodes: Sequence[Node]) -> bool:
    """Returns whether every pool has room for an actor, wherever Ray places all actors of the other pools.

    For each node it counts how many devices, or actors, of the other pools leave no room there. If the other pools have
    fewer in total than are needed to fill all nodes, some node has room.
    """
    for name, one in demands.items():
        others = [other for key, other in demands.items() if key != name and other.gpus + other.cpus > 0]
        there = sum(other.most * max(1, other.devices) for other in others)
        needed = 0
        for node in nodes:
            if node.gpus < one.gpus - _EPSILON or node.cpus < one.cpus - _EPSILON:
                continue
            ways = [there + 1]
            if one.gpus and any(other.gpus for other in others):
                a_device = 1 + int(max(0.0, 1.0 - one.gpus) / max(min(other.gpus, 1.0) for other in others) + _EPSILON)
                ways.append((int(node.gpus) - one.devices + 1) * a_device)
            if one.cpus and (largest := max((other.cpus for other in others), default=0.0)):
                ways.append(1 + int((node.cpus - one.cpus) / largest + _EPSILON))
            needed += min(ways)
        if there >= needed:
            return False
    return True


def most_actors(
    pools: Mapping[str, WorkersSpec], demands: Mapping[str, Demand], nodes: Sequence[Node]
) -> dict[str, int]:
    """Returns the most actors of each pool that uses GPUs.

    Pools without a declared number get one more actor in turn, as long as it fits and `always_fits` stays true.
    """
    free = FreeGpus(nodes)
    named = {name: demands[name] for name in sorted(demands, key=lambda name: demands[name].gpus, reverse=True)}
    named = {name: one for name, one in named.items() if one.gpus}

    def placed(one: Demand) -> bool:
        return any(free.take(i, one) for i in range(len(nodes)))

    for one in named.values():
        for _ in range(one.most):
            placed(one)
    growing = [name for name in named if pools[name].max_workers is None]
    while growing:
        for name in list(growing):
            more = {**named, name: replace(named[name], most=named[name].most + 1)}
            if always_fits({**demands, **more}, nodes) and placed(named[name]):
                named = more
            else:
                growing.remove(name)
    return {name: one.most for name, one in named.items()}


def fullest_node(
    node: Node, shares: Mapping[str, int], counts: Mapping[str, tuple[int, int]], gpus: Mapping[str, float]
) -> int:
    """Returns the most hundredths of a CPU that actors can take of a node, whichever of them Ray places there."""
    room = int(100 * node.cpus + 1e-6)
    sums, within = 1, (1 << (room + 1)) - 1  # bit i: some choice of actors takes i
    for name, share in shares.items():
        most = min(counts[name][1], room // max(1, share))
        for _ in range(min(most, int(node.gpus / gpus[name] + 1e-9)) if gpus[name] else most):
            sums |= sums << share & within
    return sums.bit_length() - 1
