"""The engine for one machine: worker processes forked from one fork server, and threads that feed them. No Ray.

    units -> [probe] -> blocks -> [decode, encode, ...] -> shards

There is one worker for each core. A worker is a thread of this process with one process for each stage that needs one;
tables pass through shared memory. A worker takes the block that is nearest to its end, and opens new samples only if no
block is left, so that few blocks wait, whatever the corpus, and the windows of a long file go to all workers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TextIO

import pyarrow as pa

from pipeline.config.bound import HasAddress
from pipeline.config.models import ComputeConfig
from pipeline.core.system.cpus import available_cpus
from pipeline.engine._block_queue import BlockQueue
from pipeline.engine._hosting import hosted_for_thread, map_blocks
from pipeline.engine._shard_pool import ShardPool
from pipeline.engine.errors import as_user_error
from pipeline.engine.memory import peak_memory
from pipeline.engine.progress import Progress
from pipeline.engine.spec import Execution, PipelineSpec, StageSpec
from pipeline.sandbox import SandboxedStage
from pipeline.stages.units import Unit

_PATIENCE_S = 10.0
"""Longest wait for the workers, once their processes were ended."""


class LocalEngine:
    """Runs a spec on the cores of this machine.

    Args:
        fork_server: the fork server of this run. None: each process is a new Python interpreter.
    """

    name = "local"

    def __init__(self, compute: ComputeConfig, fork_server: HasAddress | None) -> None:
        self.compute, self.fork_server = compute, fork_server

    def check(self) -> None:
        """Does nothing: nothing can fail before a stage is set up."""

    def start_early(self) -> None:
        """Does nothing: the fork server has been started."""

    def gpus(self) -> float:
        """Returns 0: encoders may use a GPU, but this engine does not share them out."""
        return 0.0

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        cpus = available_cpus() if self.compute.num_cpus is None else self.compute.num_cpus
        phases = _phases(spec)
        writers = ShardPool(spec.sink)
        queue = BlockQueue(work, len(phases))
        address = None if self.fork_server is None else self.fork_server.address
        workers = [_Worker(phases, queue, writers, address) for _ in range(_worker_count(spec, cpus))]
        done = Execution(devices={"nodes": 1.0, "cpus": float(cpus), "gpus": 0.0})
        try:
            with Progress(samples, terminal, writers.counts) as progress:
                try:
                    for worker in workers:
                        worker.thread.start()
                    queue.wait()
                    peaks = [peak for worker in workers for peak in worker.memory_peaks()]
                    done.workers = {"processes": len(peaks), "peak_memory_bytes": sum(peaks)}
                finally:
                    queue.close()
                    _stop(workers)
                done.written = writers.close()
            done.first_row_at = progress.first_row_at
        except BaseException as error:
            writers.abort()
            if isinstance(error, Exception):
                raise as_user_error(error, spec.sink.run_id) from error
            raise
        return done


def _stop(workers: Sequence[_Worker]) -> None:
    """Ends the processes of all workers, then their threads."""
    for worker in workers:
        worker.end_processes()
    deadline = time.monotonic() + _PATIENCE_S
    for worker in workers:
        if worker.thread.is_alive():
            worker.thread.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        worker.close()


def _worker_count(spec: PipelineSpec, cpus: int) -> int:
    """Returns the number of workers: one for each core, or for as many cores as a pool asks for; at most a pool's
    limit."""
    pools = [step.workers for step in spec.steps if step.workers.kind == "pool"]
    cores_of_one = max([1, *(int(pool.num_cpus or 1) for pool in pools)])
    return max(1, min([cpus // cores_of_one, *(pool.max_workers or cpus for pool in pools)]))


def _phases(spec: PipelineSpec) -> list[tuple[StageSpec, ...]]:
    """Returns the stages in phases: each step of tasks, then all pools together. A block waits only between phases."""
    tasks = [step.stages for step in spec.steps if step.workers.kind == "tasks"]
    pools = tuple(stage for step in spec.steps if step.workers.kind == "pool" for stage in step.stages)
    return [*tasks, pools]


class _Worker:
    """One core's worth of work: a thread, and the processes of its stages."""

    def __init__(
        self, phases: Sequence[tuple[StageSpec, ...]], queue: BlockQueue, writers: ShardPool, fork_server: str | None
    ) -> None:
        self.phases, self.queue, self.writers = phases, queue, writers
        self.stages = [[hosted_for_thread(spec, fork_server) for spec in phase] for phase in phases]
        self.is_set_up = [False] * len(phases)
        self.thread = threading.Thread(target=self._run, daemon=True, name="tessera-worker")

    def _run(self) -> None:
        while (block := self.queue.take()) is not None:
            error: BaseException | None = None
            try:
                self._map(*block)
            except BaseException as raised:  # the driver raises it
                error = raised
            self.queue.finish(error)

    def _map(self, phase: int, table: pa.Table) -> None:
        if not self.is_set_up[phase]:
            for stage in self.stages[phase]:
                stage.setup()
            self.is_set_up[phase] = True
        for done in map_blocks(self.phases[phase], self.stages[phase], [table]):
            if phase + 1 < len(self.phases):
                self.queue.put(phase + 1, done)
            else:
                self.writers.add(done)

    def memory_peaks(self) -> list[int]:
        """Returns the most resident memory that each of its processes had, in bytes. Pages shared with the fork server
        count in each."""
        children = [stage.child for stage in self._sandboxed() if stage.child is not None]
        return [peak for child in children if (peak := peak_memory(child.process.pid)) is not None]

    def end_processes(self) -> None:
        """Ends the processes. A thread that waits for one ends with an error, which is discarded."""
        for stage in self._sandboxed():
            stage.stop()

    def close(self) -> None:
        """Closes the files of the processes."""
        if not self.thread.is_alive():
            for stage in self._sandboxed():
                stage.close()

    def _sandboxed(self) -> list[SandboxedStage]:
        return [stage for stages in self.stages for stage in stages if isinstance(stage, SandboxedStage)]
