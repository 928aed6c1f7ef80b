"""The Ray Data graph of an extraction: its stages as Ray calls them, and the sink they end in.

    [probe, cut] tasks -> [fetch, decode, tokenize] tasks -> [encode] actors, one pool a name -> [write] tasks

On a host without GPUs decoding fuses into the first pool's actors, one a core; beside a GPU it never
does. Scheduling, streaming, backpressure and retries are Ray Data's.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.exceptions import UserCodeException

from pipeline import sources
from pipeline.config.bound import BoundConfig
from pipeline.core import allocator
from pipeline.core.errors import DeviceFailed, ProcessDied, TesseraError, describe
from pipeline.core.read_write_lock import ReadWriteLock
from pipeline.core.schema import CONTRACT, FIXED
from pipeline.core.versions import installed
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.shards.row_files import footer
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.progress import Progress
from pipeline.engine.ray.counter import WorkerMemory
from pipeline.engine.ray.crash_journal import CrashJournalClient
from pipeline.engine.ray.pools import TASK_CPUS, PoolSize
from pipeline.engine.ray.sink import ShardSink
from pipeline.sandbox import SandboxedStage, SubprocessStage
from pipeline.stages import units
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import CALLS_ON_GPU, EncodeStage
from pipeline.stages.probe import ProbeStage, ReadPlanStage
from pipeline.stages.reuse import KeepColumnsStage, ReuseColumnsStage, ReuseSource, StoredTimes
from pipeline.stages.rows import add_meter
from pipeline.stages.units import Unit

_ROWS = 32
_TELL_S = 10.0
"""The counter has so long to hear why a worker broke."""


def execute(
    prepared: BoundConfig,
    work: Sequence[Unit],
    carry: ReuseSource | None,
    progress: Progress,
    pools: dict[str, PoolSize],
    on_gpu: bool,
    sink: ShardSink,
) -> None:
    """Decodes, encodes and writes the samples of ``work``. Raises what Ray raises.

    Args:
        pools, on_gpu: see `cluster.pools_of`.
    """
    _build(prepared, work, carry, progress, pools, on_gpu).write_datasink(
        sink, ray_remote_args={"num_cpus": TASK_CPUS}, concurrency=_tasks_at_once(1)
    )


def sink(prepared: BoundConfig, run_id: str, root: str) -> ShardSink:
    """What writes the rows of this run into the version at ``root``, with their lineage; counts them."""
    config, features = prepared.config, prepared.features
    passthrough = sources.build(config.source).passthrough()
    schema = pa.schema([*FIXED, *passthrough, *(field for feature in features for field in feature.fields())])
    lineage = {
        "contract": CONTRACT,
        "run_id": run_id,
        "window": config.window.model_dump(mode="json"),
        "features": {feature.name: feature.lineage() for feature in features},
        "versions": installed(),
    }
    columns = {feature.name: [field.name for field in feature.fields()] for feature in features}
    stored, output = footer(schema, lineage), config.output

    def open_writer(name: str) -> ShardWriter:
        return ShardWriter(root, name, run_id, columns, stored, output)

    return ShardSink(open_writer, run_id, min_rows=16 * min(config.block_rows, _ROWS))


def _build(
    prepared: BoundConfig,
    work: Sequence[Unit],
    carry: ReuseSource | None,
    progress: Progress,
    pools: dict[str, PoolSize],
    on_gpu: bool,
) -> Any:
    config, features = prepared.config, prepared.features
    splitter = BlockSplitter(features, config.decoders.limits.block_bytes)
    dataset = ray.data.from_blocks([units.unit_table(unit) for unit in work])
    other = carry if carry is not None and not carry.own else None
    times = StoredTimes(other.root, _shards(other)) if other is not None and other.other_times else None
    own_times = StoredTimes(carry.root, _shards(carry)) if carry is not None and carry.own else None
    probe = _isolated(ProbeStage(config, features, other.read if other else None, times, own_times), prepared.template)
    dataset = _map(dataset, _Task((ReadPlanStage(), probe), progress.actor), TASK_CPUS, at_once=_tasks_at_once(2))
    dataset = _of_rows(dataset, config.block_rows)
    carried = frozenset(feature.name for feature in other.features) if other else frozenset()
    decode: tuple[Any, ...] = (_isolated(DecodeStage(config, features, carried), prepared.template),)
    if on_gpu:
        # with arguments from a function Ray never fuses it into a pool that asks for as much
        dataset = _map(dataset, _Task(decode, progress.actor, splitter), num_cpus=1, ray_remote_args_fn=dict)
        decode = ()
    for number, (name, actors) in enumerate(pools.items()):
        hosted = tuple(feature for feature in features if feature.config.pool == name)
        encode = EncodeStage(config, hosted, threads=max(1, int(actors.num_cpus)))
        template = None if on_gpu else prepared.template
        stages = (*decode, EncodeSubprocessStage(encode, template) if template else encode)
        decode, last = (), number == len(pools) - 1
        if carry and last:
            source = carry.root, _shards(carry), carry.features
            taking = (
                KeepColumnsStage(*source, config.text_windows() is not None)
                if carry.own
                else ReuseColumnsStage(*source)
            )
            stages = (*stages, taking)
        dataset = dataset.map_batches(
            _Stage,
            fn_constructor_args=(stages, progress.actor, splitter, last),
            batch_size=config.block_rows if actors.num_gpus else None,  # Ray insists on a number beside a GPU
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=_pool(actors),
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus or None,
        )
    return dataset


def _shards(carry: ReuseSource) -> list[File]:
    """The shards that rows are taken from, without the positions of deleted rows, which no row names."""
    return [dataclasses.replace(shard, deleted=()) for shard in carry.snapshot.shards]


def _pool(actors: PoolSize) -> ActorPoolStrategy:
    """With a GPU, an actor takes several blocks at once and has another one queued."""
    calls = CALLS_ON_GPU if actors.num_gpus else 1
    return ActorPoolStrategy(
        min_size=actors.least,
        max_size=actors.most,
        max_tasks_in_flight_per_actor=calls + 1,
        max_concurrent_calls_per_actor=calls,
        enable_true_multi_threading=calls > 1,
    )


def _tasks_at_once(least: int) -> int:
    """Of the small kinds, a kind: what they ask for would let a node start dozens.

    ``least``: two probes, so that a file that hangs holds up one; one writer, since each worker more takes a core four
    seconds to import Ray Data.
    """
    return max(least, int(ray.cluster_resources().get("CPU", 1) / 2))


class EncodeSubprocessStage(SubprocessStage):
    """The encoders in a process of their own, forked from a template, on a host without GPUs.

    Rows that are to be encoded alone are encoded in this one, whose deaths are counted.
    """

    stage: EncodeStage

    def __init__(self, stage: EncodeStage, template: str) -> None:
        super().__init__(stage, template)
        self.alone: CrashJournalClient | None = None
        self.here = False

    def __call__(self, table: pa.Table) -> pa.Table:
        if (self.alone is not None) != self.here:  # one at a time holds the models
            self.here = not self.here
            self._move()
        if not self.here:
            return super().__call__(table)
        self.stage.alone = self.alone
        return self.stage(table)

    def _move(self) -> None:
        """The models, into this process or into the other."""
        if self.here:
            self.close()
            self.stage.setup()
        else:
            self.stage.encoders.clear()
            self.stage.heads.clear()
            self.stage.alone = None
            self.setup()


class _Stage:
    """Stages as Ray calls them: set up once a process; the last pool's rows are counted for the progress display."""

    def __init__(
        self, stages: tuple[Any, ...], progress: Any, splitter: BlockSplitter | None = None, last: bool = False
    ) -> None:
        allocator.keep_pages()
        self.stages, self.progress, self.splitter, self.last = stages, progress, splitter, last
        self.memory = WorkerMemory(progress)
        self.trail = (
            CrashJournalClient(progress)
            if any(isinstance(stage, EncodeStage | EncodeSubprocessStage) for stage in stages)
            else None
        )
        self.broken: Exception | None = None
        self.turns = ReadWriteLock()
        try:
            if self.trail is not None:
                self.trail.set_up()
            _set_up(stages)
        except Exception as error:  # told at the first call: of an actor that does not start Ray tells no cause
            self.broken = error
        if self.trail is not None:
            self.trail.rest()

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        """Returns the mapped rows as one table, or a generator of tables if they need too much memory together."""
        parts = [table] if self.splitter is None else self.splitter.split(table)
        if len(parts) > 1:
            return self._map_parts(parts)
        done = self._mapped(table)
        if self.last:
            self.progress.add.remote(*Progress.count(done))
        return done

    def _map_parts(self, parts: list[pa.Table]) -> Generator[pa.Table]:
        counts = []
        for part in parts:
            try:
                done = [self._mapped(part)]
            except Exception as error:  # Ray wraps errors of plain functions so, and then logs them without a traceback
                raise UserCodeException("a part of a block failed") from error
            if self.last:
                counts.append(Progress.count(done[0]))
            yield done.pop()  # a local variable would keep the table in memory until the next part
        if counts:  # only here: after a crash Ray repeats the whole block
            self.progress.add.remote(*map(sum, zip(*counts, strict=True)))

    def _mapped(self, table: pa.Table) -> pa.Table:
        try:
            if self.broken is not None:
                raise self.broken
            suspected = self.trail is not None and self.trail.suspects(table)
            with self.turns.write() if suspected else self.turns.read():
                alone = self.trail if self.trail is not None and self.trail.begin(table) else None
                for stage in self.stages:
                    if isinstance(stage, EncodeStage | EncodeSubprocessStage):
                        stage.alone = alone
                    table = stage(table)
        except ProcessDied:
            os._exit(1)
        except Exception as error:
            if isinstance(error, DeviceFailed) and self.trail is not None and self.trail.device_failed(error.words):
                os._exit(1)
            cause = error if isinstance(error, TesseraError) else TesseraError(describe(error))
            ray.wait([self.progress.broke.remote(cause)], timeout=_TELL_S)
            raise
        self.memory.report(_processes(self.stages))
        return add_meter(table, "bytes_moved", np.full(len(table), table.nbytes / max(1, len(table))))


def _processes(stages: tuple[Any, ...]) -> list[int]:
    """The processes of isolated stages, which may be forked from another."""
    children = [stage.child for stage in stages if isinstance(stage, SandboxedStage | SubprocessStage)]
    return [child.process.pid for child in children if child is not None]


def _set_up(stages: tuple[Any, ...]) -> None:
    """An isolated stage waits for its process; the others import and load meanwhile. Raises what a ``setup`` raises.

    That process ends with the thread that started it, so it is this one that starts it.
    """
    with ThreadPoolExecutor(1) as beside:
        others = [
            beside.submit(stage.setup) for stage in stages if not isinstance(stage, SandboxedStage | SubprocessStage)
        ]
        for stage in stages:
            if isinstance(stage, SandboxedStage | SubprocessStage):
                stage.setup()
        for other in others:
            other.result()


_READY: dict[bytes, _Stage] = {}


class _Task:
    """Stages as a plain function for Ray tasks; a worker process keeps them set up between tasks."""

    def __init__(self, stages: tuple[Any, ...], progress: Any, splitter: BlockSplitter | None = None) -> None:
        self.stages, self.progress, self.splitter, self.key = stages, progress, splitter, secrets.token_bytes(8)
        self.__name__ = getattr(stages[-1], "name", type(stages[-1]).__name__)

    def __call__(self, table: pa.Table) -> pa.Table | Generator[pa.Table]:
        if self.key not in _READY:
            _READY[self.key] = _Stage(self.stages, self.progress, self.splitter)
        return _READY[self.key](table)


def _isolated(stage: ProbeStage | DecodeStage, template: str | None) -> Any:
    limits = stage.config.decoders.limits
    return SandboxedStage(stage, limits, template) if limits.isolate else stage


def _of_rows(dataset: Any, rows: int) -> Any:
    """In blocks of at most ``rows``, cut by the task that makes them.

    Ray's own step for it asks for a whole CPU, waits for ever where actors leave less, and has no option for it; asking
    for what the step before it asks for, it becomes a part of that.
    """
    dataset = dataset.repartition(target_num_rows_per_block=rows)
    plan = dataset._logical_plan
    before = plan.dag.input_dependencies[0]
    plan._dag = dataclasses.replace(plan.dag, ray_remote_args=before.ray_remote_args, compute=before.compute)
    return dataset


def _map(dataset: Any, task: _Task, num_cpus: float, at_once: int | None = None, **options: Any) -> Any:
    return dataset.map_batches(
        task,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=num_cpus,
        compute=TaskPoolStrategy(at_once),
        **options,
    )
