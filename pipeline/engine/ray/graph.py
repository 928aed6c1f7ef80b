"""Builds a Ray Data graph from a `PipelineSpec`, whatever its stages do.

    tasks -> ... -> actors, one pool for each step of kind ``pool`` -> write tasks

Ray Data schedules, streams, applies backpressure and retries.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from pipeline.engine.ray.late_check import LateCheck
from pipeline.engine.ray.pools import TASK_CPUS, PoolSize
from pipeline.engine.ray.sink import ShardSink
from pipeline.engine.ray.worker import StageWorker, TaskWorker
from pipeline.engine.spec import PipelineSpec, Step
from pipeline.stages.units import Unit, unit_table


def execute(
    spec: PipelineSpec,
    work: Sequence[Unit],
    sizes: Mapping[str, PoolSize],
    counter: Any,
    sink: ShardSink,
    late: LateCheck | None,
) -> None:
    """Maps ``work`` through ``spec`` into ``sink``. Raises what Ray raises.

    Args:
        sizes: sizes of the steps of kind ``pool``, by name.
        counter: actor handle of the run's counter.
        late: the check of nodes that join during the run. None: there is none.
    """
    dataset, run = ray.data.from_blocks([unit_table(unit) for unit in work]), secrets.token_bytes(8)
    for number, step in enumerate(spec.steps):
        is_last = number == len(spec.steps) - 1
        # the second step asks whether it may begin a unit. The first may be far ahead, since Ray limits bytes, and rows
        # without media have few; after the deadline it reads no more units
        asks = spec.until is not None and number <= 1
        own = step.stages, step.workers.concurrent_blocks, counter, is_last
        arguments = (*own, spec.storage, late, asks, spec.metrics)
        if step.workers.kind == "tasks":
            dataset = _tasks(dataset, step, run, arguments)
        else:
            dataset = _actors(dataset, step, sizes[step.name], arguments, spec.block_rows)
        if (rows := step.stages[-1].block_rows) is not None:
            dataset = _in_blocks(dataset, rows)
    dataset.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS}, concurrency=_tasks_at_a_time(1))


def _tasks(dataset: Any, step: Step, run: bytes, arguments: tuple[Any, ...]) -> Any:
    """Adds a step that runs as tasks.

    The number of tasks of less than a CPU is limited, since a node would start dozens.
    """
    cpus = step.workers.num_cpus or TASK_CPUS
    is_small = cpus < 1
    # with arguments from a function Ray never fuses a task into a pool that asks for as much
    options: dict[str, Any] = {} if is_small else {"ray_remote_args_fn": dict}
    return dataset.map_batches(
        type(_name(step), (TaskWorker,), {})(_name(step), run, *arguments),  # Ray shows the name of the class
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=cpus,
        compute=TaskPoolStrategy(_tasks_at_a_time(2) if is_small else None),
        **options,
    )


def _actors(dataset: Any, step: Step, size: PoolSize, arguments: tuple[Any, ...], block_rows: int) -> Any:
    """Adds a step that runs as a pool of actors. Each actor has one more block queued than it maps at a time; in a pool
    that grows as many more, since Ray adds actors if 1.75 times as many blocks as are mapped at a time are in flight.
    """
    blocks = step.workers.concurrent_blocks
    return dataset.map_batches(
        type(_name(step), (StageWorker,), {}),
        fn_constructor_args=arguments,
        batch_size=block_rows if size.num_gpus else None,  # Ray requires a number if an actor has a GPU
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            min_size=size.least,
            max_size=None if size.grows else size.most,
            max_tasks_in_flight_per_actor=blocks + (blocks if size.grows else 1),
            max_concurrent_calls_per_actor=blocks,
            enable_true_multi_threading=blocks > 1,
        ),
        num_cpus=size.num_cpus,
        num_gpus=size.num_gpus or None,
    )


def _name(step: Step) -> str:
    """Returns the name that Ray's dashboard shows: those of the stages."""
    return "+".join(stage.name for stage in step.stages)


def _tasks_at_a_time(least: int) -> int:
    """Returns how many small tasks of one kind run at a time: half of the CPUs, at least ``least``.

    Two probes, so that a file that hangs blocks only one. One writer, since each further worker takes 4 s of a core to
    import Ray Data.
    """
    return max(least, int(ray.cluster_resources().get("CPU", 1) / 2))


def _in_blocks(dataset: Any, rows: int) -> Any:
    """Cuts blocks to at most ``rows``, in the task that makes them.

    Ray's own step for this asks for a whole CPU, waits for ever if actors leave less, and has no option for it. This
    function sets two fields of Ray's logical plan: a step that asks for the same resources as the step before becomes a
    part of that step. `tests/engine/ray/test_graph.py` checks this with the pinned Ray.
    """
    dataset = dataset.repartition(target_num_rows_per_block=rows)
    plan = dataset._logical_plan
    before = plan.dag.input_dependencies[0]
    plan._dag = dataclasses.replace(plan.dag, ray_remote_args=before.ray_remote_args, compute=before.compute)
    return dataset
