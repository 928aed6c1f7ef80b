"""A worker of a run on one machine: threads, and the processes of the stages that they share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline.engine._block_queue import BlockQueue
from pipeline.engine._hosting import hosted_for_thread, map_blocks
from pipeline.engine._shard_pool import ShardPool
from pipeline.engine.local_layout import Layout, WorkerGroup
from pipeline.engine.memory import peak_memory
from pipeline.sandbox import SandboxedStage
from pipeline.sandbox.process import ProcessOptions

_PATIENCE_S = 10.0
"""Longest wait for the workers, once their processes were ended."""


class LocalWorker:
    """Maps the phases of its group, in as many threads as it maps blocks at a time.

    Args:
        layout: all phases.
        group: its group.
        environment: variables of its processes.
        queue: where its blocks come from, and go to for the next phase.
        writers: takes the blocks of the last phase.
        fork_server: address of the fork server. None: each process is a new Python interpreter.
    """

    def __init__(
        self,
        layout: Layout,
        group: WorkerGroup,
        environment: Mapping[str, str],
        queue: BlockQueue,
        writers: ShardPool,
        fork_server: str | None,
    ) -> None:
        self.layout, self.group, self.queue, self.writers = layout, group, queue, writers
        options = ProcessOptions(fork_server, environment, group.concurrency)
        self.stages = {
            phase: [hosted_for_thread(spec, options) for spec in layout.phases[phase]] for phase in group.phases
        }
        self.is_set_up = dict.fromkeys(group.phases, False)
        self.error: BaseException | None = None
        """Why a stage cannot be set up."""
        self.lock = threading.Lock()
        """Held while stages are set up."""
        self.threads = [
            threading.Thread(target=self._run, daemon=True, name="tessera-worker") for _ in range(group.concurrency)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        """Maps blocks until there are no more. Models are loaded at once, other stages are set up when needed."""
        try:
            if 0 not in self.group.phases:
                for phase in self.group.phases:
                    self._set_up(phase)
            self._map_blocks()
        except BaseException as error:  # the driver raises it
            self.queue.fail(error)

    def _map_blocks(self) -> None:
        while (block := self.queue.take(self.group.phases)) is not None:
            error: BaseException | None = None
            try:
                self._map(*block)
            except BaseException as raised:  # the driver raises it
                error = raised
            self.queue.finish(error)

    def _set_up(self, phase: int) -> None:
        with self.lock:
            if self.error is not None:  # of another thread: it would only take time again
                raise self.error
            if self.is_set_up[phase]:
                return
            try:
                for stage in self.stages[phase]:
                    stage.setup()
            except BaseException as error:
                self.error = error
                raise
            self.is_set_up[phase] = True

    def _map(self, phase: int, table: pa.Table) -> None:
        self._set_up(phase)
        phases = self.layout.phases
        for done in map_blocks(phases[phase], self.stages[phase], [table]):
            if phase + 1 < len(phases):
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
        if not any(thread.is_alive() for thread in self.threads):
            for stage in self._sandboxed():
                stage.close()

    def _sandboxed(self) -> Iterator[SandboxedStage]:
        for stages in self.stages.values():
            yield from (stage for stage in stages if isinstance(stage, SandboxedStage))


def stop(workers: Sequence[LocalWorker]) -> None:
    """Ends the processes of all workers, then their threads."""
    for worker in workers:
        worker.end_processes()
    deadline = time.monotonic() + _PATIENCE_S
    for thread in (thread for worker in workers for thread in worker.threads):
        if thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        worker.close()
