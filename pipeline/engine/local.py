"""The engine for one machine: worker processes forked from one fork server, and threads that feed them. No Ray.

    units -> [probe] -> blocks -> [decode, encode, ...] -> shards               on CPUs
    units -> [probe] -> blocks -> [decode] -> blocks -> [encode, ...] -> shards  beside GPUs

On CPUs there is one worker for each core: a thread of this process, with one process for each stage that needs one.
Tables pass through shared memory. A worker takes the block that is nearest to its end, and opens new samples only if no
block is left, so that few blocks wait, whatever the corpus, and the windows of a long file go to all workers.

Beside GPUs each pool has a worker for each GPU, or each share of one, whose process maps several blocks at a time. The
other cores decode for them, and wait if enough decoded blocks are waiting.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import TextIO

from pipeline.config.bound import HasAddress
from pipeline.config.models import ComputeConfig
from pipeline.core.system import devices
from pipeline.engine._block_queue import BlockQueue
from pipeline.engine._local_worker import LocalWorker, stop
from pipeline.engine._shard_pool import ShardPool
from pipeline.engine.errors import as_user_error
from pipeline.engine.local_layout import Machine, Phase, WorkerGroup, layout
from pipeline.engine.node_check import NodeTask, Problem
from pipeline.engine.progress import Progress
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.stages.units import Unit, unit_name
from pipeline.telemetry import metrics, recording


class LocalEngine:
    """Runs a spec on the cores and GPUs of this machine.

    Args:
        fork_server: the fork server of this run. None: each process is a new Python interpreter.
    """

    name = "local"

    def __init__(self, compute: ComputeConfig, fork_server: HasAddress | None) -> None:
        self.compute, self.fork_server = compute, fork_server

    def check(self) -> None:
        """Does nothing: nothing can fail before a stage is set up."""

    def gpus(self, terminal: TextIO | None) -> float:
        """Returns the number of GPUs of this machine that CUDA shows."""
        return float(len(devices.visible_gpus()))

    def check_nodes(
        self, spec: PipelineSpec, task: NodeTask, terminal: TextIO | None
    ) -> list[tuple[str, Problem | None]]:
        """Checks this machine."""
        layout(spec, Machine.here(self.compute))
        return [(platform.node(), task.problem(self.gpus(terminal)))]

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        machine = Machine.here(self.compute)
        found = layout(spec, machine)
        writers = ShardPool(spec.sink)
        limits = _limits(found.groups, len(found.phases))
        queue = BlockQueue(work, limits, len(found.groups[0].environments), spec.until)
        recording.watch(lambda: _depths(queue, found.phases))
        address = None if self.fork_server is None else self.fork_server.address
        workers = [
            LocalWorker(found, group, environment, queue, writers, address)
            for group in found.groups
            for environment in group.environments
        ]
        gpus = len(machine.gpus) if spec.shares_gpus else 0
        done = Execution(devices={"nodes": 1.0, "cpus": float(machine.cpus), "gpus": float(gpus)})
        try:
            with Progress(samples, terminal, writers.counts) as progress:
                try:
                    for worker in workers:
                        worker.start()
                    queue.wait()
                    peaks = [peak for worker in workers for peak in worker.memory_peaks()]
                    done.workers = {"processes": len(peaks), "peak_memory_bytes": sum(peaks)}
                finally:
                    queue.close()
                    stop(workers)
                done.written = writers.close()
                done.nodes = [
                    {
                        "name": platform.node(),
                        "alive": True,
                        "cpus": float(machine.cpus),
                        "gpus": float(gpus),
                        "gpu_names": devices.gpu_names(machine.gpus if gpus else ()),
                        "rows": done.written.rows_written + done.written.rows_failed,
                        **(done.workers or {}),
                    }
                ]
            done.first_row_at = progress.first_row_at
            done.begun = frozenset(unit_name(url, group) for url, group, _ in queue.begun)
        except BaseException as error:
            writers.abort()
            if isinstance(error, Exception):
                raise as_user_error(error, spec.sink.run_id) from error
            raise
        return done


def _depths(queue: BlockQueue, phases: Sequence[Phase]) -> Iterator[recording.Value]:
    """Yields how many blocks wait for each phase; for the first one, how many units of samples."""
    for phase, depth in zip(phases, (len(queue.units), *map(len, queue.waiting[1:])), strict=True):
        yield metrics.QUEUE, (phase[-1 if phase is phases[0] else 0].name.split()[0],), float(depth)


def _limits(groups: Sequence[WorkerGroup], phases: int) -> list[int | None]:
    """Returns for each phase how many blocks may wait for it before those who make them wait: twice as many as are
    mapped at a time. None: those who make them map them too."""
    limits: list[int | None] = [None] * phases
    for group in groups:
        if group.phases[0] > 0:
            limits[group.phases[0]] = 2 * group.concurrency * len(group.environments)
    return limits
