"""Which workers a run on one machine has: which stages they map, how many there are, and the GPUs of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError
from pipeline.core.system import devices
from pipeline.core.system.cpus import available_cpus
from pipeline.core.system.memory import available_memory
from pipeline.engine.spec import PipelineSpec, StageSpec, Step

Phase = tuple[StageSpec, ...]
"""Stages that a block passes without waiting."""
Environment = Mapping[str, str]
_PARTS = 8
"""Most parts that pools divide a GPU into by default."""
_EPSILON = 1e-9
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class WorkerGroup:
    """Equal workers.

    Args:
        phases: numbers of the phases that they map.
        environments: for each worker the variables that its processes have besides those of the driver.
        concurrency: number of blocks that a worker maps at a time.
    """

    phases: range
    environments: tuple[Environment, ...]
    concurrency: int = 1


@dataclass(frozen=True)
class Layout:
    """The phases in the order in which blocks pass them, and the workers that map them."""

    phases: tuple[Phase, ...]
    groups: tuple[WorkerGroup, ...]

    @property
    def workers(self) -> int:
        """The number of workers."""
        return sum(len(group.environments) for group in self.groups)


@dataclass(frozen=True)
class Machine:
    """What a run may use of this machine.

    Args:
        cpus: number of cores.
        memory_bytes: memory.
        gpus: the GPUs, as ``CUDA_VISIBLE_DEVICES`` names them.
    """

    cpus: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls, compute: ComputeConfig) -> Machine:
        """Returns this machine, as far as its affinity mask, its cgroups and the config allow."""
        cpus = available_cpus() if compute.num_cpus is None else compute.num_cpus
        return cls(cpus, available_memory(), tuple(devices.visible_gpus()))


def layout(spec: PipelineSpec, machine: Machine) -> Layout:
    """Returns the workers for a spec.

    Without GPUs each worker maps all phases. With GPUs each pool has workers of its own, and the cores that they leave
    decode for them. There are no more workers than memory has room for, but one of each kind.

    Raises:
        ConfigError: a pool asks for more GPUs than there are.
    """
    pools = [step for step in spec.steps if step.workers.kind == "pool"]
    asking = next((pool for pool in pools if pool.workers.num_gpus), None)
    if asking is not None and not machine.gpus:
        where = f"compute.pools.{asking.name}.num_gpus"
        raise ConfigError(where, f"{asking.workers.num_gpus:g}", "this machine has no GPU that CUDA shows: 0, or none")
    use_gpus = spec.shares_gpus and any(pool.workers.num_gpus != 0 for pool in pools)
    return _beside_gpus(spec, pools, machine) if machine.gpus and use_gpus else _on_cpus(spec, pools, machine)


def _on_cpus(spec: PipelineSpec, pools: Sequence[Step], machine: Machine) -> Layout:
    """Returns equal workers that map all phases. All pools are one phase: a block does not wait between them."""
    tasks = [step.stages for step in spec.steps if step.workers.kind == "tasks"]
    phases = (*tasks, tuple(stage for step in pools for stage in step.stages))
    count = min(_cpu_workers(pools, machine.cpus), _room(machine.memory_bytes, spec.task_bytes + spec.model_bytes))
    environment = _NO_GPU if spec.shares_gpus and machine.gpus else {}
    return Layout(phases, (WorkerGroup(range(len(phases)), (environment,) * count),))


def _beside_gpus(spec: PipelineSpec, pools: Sequence[Step], machine: Machine) -> Layout:
    """Returns workers for each pool, and those that decode for them, who come first.

    Of the cores and the memory that the workers on GPUs leave, pools on CPUs have half.
    """
    workers = _on_gpus([pool for pool in pools if pool.workers.num_gpus != 0], machine.gpus)
    encoder_bytes = spec.task_bytes + spec.model_bytes
    cores = machine.cpus - sum(map(len, workers.values()))
    memory = machine.memory_bytes - encoder_bytes * sum(map(len, workers.values()))
    on_cpus = [pool for pool in pools if pool.workers.num_gpus == 0]
    parts = 2 * max(1, len(on_cpus))
    share, room = max(1, cores // parts), _room(memory // parts, encoder_bytes)
    for pool in on_cpus:
        workers[pool.name] = (_NO_GPU,) * min(_cpu_workers([pool], share), room)
        cores -= len(workers[pool.name]) * math.ceil(pool.workers.num_cpus or 1)
        memory -= len(workers[pool.name]) * encoder_bytes
    tasks = len(spec.steps) - len(pools)
    groups = [WorkerGroup(range(tasks), ({},) * min(max(1, cores), _room(memory, spec.task_bytes)))]
    for number, pool in enumerate(pools, start=tasks):
        groups.append(WorkerGroup(range(number, number + 1), workers[pool.name], pool.workers.concurrent_blocks))
    return Layout(tuple(step.stages for step in spec.steps), tuple(groups))


def _room(memory_bytes: int, worker_bytes: int) -> int:
    """Returns how many workers there is memory for, at least one."""
    return max(1, memory_bytes // max(1, worker_bytes))


def _cpu_workers(pools: Sequence[Step], cpus: int) -> int:
    """Returns the number of workers on CPUs: one for each core, or for as many cores as a pool asks for; at most a
    pool's limit."""
    cores_of_one = max([1, *(int(pool.workers.num_cpus or 1) for pool in pools)])
    return max(1, min([cpus // cores_of_one, *(pool.workers.max_workers or cpus for pool in pools)]))


def _on_gpus(pools: Sequence[Step], gpus: Sequence[str]) -> dict[str, tuple[Environment, ...]]:
    """Returns for each worker of each pool which GPUs its processes see.

    A pool that does not say how many GPUs a worker has gets the largest part of one with which all pools fit side by
    side. Then pools get one more worker in turn, as long as it fits and the pool has no limit that is reached.

    Raises:
        ConfigError: there is no room for one worker of each pool.
    """
    for parts in range(1, _PARTS + 1):
        shares = {pool.name: pool.workers.num_gpus or 1 / parts for pool in pools}
        free = _FreeGpus(len(gpus))
        order = sorted(pools, key=lambda pool: shares[pool.name], reverse=True)
        taken = {pool.name: [free.take(shares[pool.name])] for pool in order}
        if all(first for (first,) in taken.values()):
            break
    else:
        listed = ", ".join(f"{pool.name}: {pool.workers.num_gpus or 1 / _PARTS:g} GPUs" for pool in pools)
        raise ConfigError("compute.pools", f"{listed} for a worker", f"this machine has {len(gpus)} for all together")
    growing = order
    while growing:
        growing = [pool for pool in growing if len(taken[pool.name]) < (pool.workers.max_workers or math.inf)]
        for pool in list(growing):
            if found := free.take(shares[pool.name]):
                taken[pool.name].append(found)
            else:
                growing.remove(pool)
    return {
        name: tuple({"CUDA_VISIBLE_DEVICES": ",".join(gpus[i] for i in indices)} for indices in workers)
        for name, workers in taken.items()
    }


class _FreeGpus:
    """The part of each GPU that no worker has."""

    def __init__(self, count: int) -> None:
        self.free = [1.0] * count

    def take(self, share: float) -> list[int]:
        """Takes a part of the GPU that is used most, or several whole ones. Returns these; none if there is no room."""
        whole, part = math.ceil(share - _EPSILON), min(share, 1.0)
        fullest_first = sorted(range(len(self.free)), key=self.free.__getitem__)
        fitting = [i for i in fullest_first if self.free[i] >= part - _EPSILON]
        if len(fitting) < whole:
            return []
        for i in fitting[:whole]:
            self.free[i] -= part
        return sorted(fitting[:whole])
