"""Which workers a run on one machine has: which stages they map, how many there are, and the GPUs of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError
from pipeline.core.system import devices
from pipeline.core.system.cpus import available_cpus
from pipeline.core.system.memory import available_memory
from pipeline.engine._placement import Demand, FreeGpus
from pipeline.engine.pools import Node, PoolSize, sizes
from pipeline.engine.spec import PipelineSpec, StageSpec, Step, WorkersSpec

Phase = tuple[StageSpec, ...]
"""Stages that a block passes without waiting."""


@dataclass(frozen=True)
class WorkerGroup:
    """Equal workers.

    Args:
        phases: numbers of the phases that they map.
        environments: for each worker the variables that its processes have besides those of the driver.
        concurrency: number of blocks that a worker maps at a time.
    """

    phases: range
    environments: tuple[Mapping[str, str], ...]
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


def layout(spec: PipelineSpec, machine: Machine, blocks: int) -> Layout:
    """Returns the workers for a spec.

    Without GPUs each worker maps all phases. With GPUs each pool has workers of its own, and the cores that they leave
    decode for them. There are never more workers than the memory has room for.

    Args:
        blocks: number of blocks of samples.

    Raises:
        ConfigError: a pool asks for more GPUs or CPUs than there are.
    """
    steps = spec.steps
    tasks, pools = [[step for step in steps if step.workers.kind == kind] for kind in ("tasks", "pool")]
    cpus, gpus = machine.cpus, machine.gpus
    have_room = max(1, machine.memory_bytes // max(1, spec.worker_bytes))
    if any(pool.workers.num_gpus for pool in pools) and not gpus:
        asking = next(pool for pool in pools if pool.workers.num_gpus)
        where = f"compute.pools.{asking.name}.num_gpus"
        raise ConfigError(where, f"{asking.workers.num_gpus:g}", "this machine has no GPU that CUDA shows: 0, or none")
    if not gpus or not spec.shares_gpus:
        phases = (*(step.stages for step in tasks), tuple(stage for step in pools for stage in step.stages))
        return Layout(phases, (WorkerGroup(range(len(phases)), ({},) * min(have_room, _worker_count(pools, cpus))),))
    named = {pool.name: pool.workers for pool in pools}
    found = sizes(named, [Node(float(cpus), float(len(gpus)))], spec.shares_gpus, 0.0, blocks)
    environments = _environments(found, named, gpus)
    on_gpus = sum(len(environments[name]) for name, size in found.items() if size.num_gpus)
    groups = [WorkerGroup(range(len(tasks)), ({},) * min(have_room, max(1, cpus - on_gpus)))]
    for number, pool in enumerate(pools, start=len(tasks)):
        groups.append(WorkerGroup(range(number, number + 1), environments[pool.name], pool.workers.concurrent_blocks))
    return Layout(tuple(step.stages for step in steps), tuple(groups))


def _worker_count(pools: Sequence[Step], cpus: int) -> int:
    """Returns the number of workers on CPUs: one for each core, or for as many cores as a pool asks for; at most a
    pool's limit."""
    cores_of_one = max([1, *(int(pool.workers.num_cpus or 1) for pool in pools)])
    return max(1, min([cpus // cores_of_one, *(pool.workers.max_workers or cpus for pool in pools)]))


def _environments(
    found: Mapping[str, PoolSize], pools: Mapping[str, WorkersSpec], gpus: Sequence[str]
) -> dict[str, tuple[dict[str, str], ...]]:
    """Returns for each worker of each pool which GPUs its processes see.

    The workers of ``found`` are placed first, largest shares first. On a cluster they must fit wherever Ray places
    them; here they are placed side by side, and pools without a limit get what is left, in turn.
    """
    free = FreeGpus([Node(0.0, float(len(gpus)))])
    order = sorted(found, key=lambda name: found[name].num_gpus, reverse=True)
    demands = {name: Demand(0.0, found[name].num_gpus, 1) for name in order}
    taken = {name: [free.take(0, demands[name]) or [] for _ in range(found[name].most)] for name in order}
    growing = [name for name in order if found[name].num_gpus and pools[name].max_workers is None]
    while growing:
        for name in list(growing):
            more = free.take(0, demands[name])
            if more is None:
                growing.remove(name)
            else:
                taken[name].append(more)
    return {
        name: tuple({"CUDA_VISIBLE_DEVICES": ",".join(gpus[i] for i in indices)} for indices in of_pool)
        for name, of_pool in taken.items()
    }
