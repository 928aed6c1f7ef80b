"""The counter of a run: an actor that all workers report to and the driver reads."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Any, cast

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.errors import TesseraError
from pipeline.engine.memory import memory_of_processes

_MEMORY_EVERY_S = 5.0
_ANSWER_S, _ERROR_ANSWER_S = 5.0, 10.0
"""Longest waits for an answer of the counter; for one that has the error of a worker."""
_MAX_DEATHS = 5
"""So many processes of an actor that die in a row without a mapped block, or of any actors at the same block, end
the run."""
Block = tuple[str, int]
"""Sample and window of the first row."""


@ray.remote(num_cpus=0)
class _CounterActor:
    """Counts finished rows, and keeps the workers' deaths and memory and the first error of a worker.

    Ray reports that error only inside messages of its own. If the actor is lost, so is the progress, but no rows.
    """

    def __init__(self, until: float | None) -> None:
        self.until = until
        self.begun = set[str]()
        """Names of units, of a run with a deadline."""
        self.counts = [0, 0, 0]
        self.cause: TesseraError | None = None
        self.starts = Counter[str]()
        """Actor -> processes that it has had since it last mapped a block."""
        self.blocks: dict[str, set[Block]] = {}
        """Actor -> the blocks that it maps."""
        self.deaths = Counter[Block]()
        """Block -> actors' processes that have died while they mapped it."""
        self.peaks: dict[tuple[str, str], int] = {}
        """Node and worker -> peak memory of its processes, in bytes."""
        self.rows = Counter[str]()
        """Node -> rows that were finished there."""

    def add(self, node: str, samples: int, rows: int, failed: int) -> None:
        for i, more in enumerate((samples, rows, failed)):
            self.counts[i] += more
        self.rows[node] += rows

    def read(self) -> list[int]:
        return self.counts

    def refused_units(self, names: list[str], begins: bool) -> list[str]:
        """Returns those of some units that must not be begun, since it is too late. ``begins``: the others are begun
        now; else they are only read."""
        if self.until is None or time.time() < self.until:
            self.begun.update(names if begins else ())
            return []
        return [name for name in names if name not in self.begun]

    def begun_units(self) -> list[str] | None:
        """Returns the names of all units that were begun. None: that is not recorded, since there is no deadline."""
        return None if self.until is None else sorted(self.begun)

    def record_start(self, actor: str) -> tuple[int, dict[Block, int]]:
        """Records a new process of an actor. Returns how many have died since one of them has mapped a block, and how
        often a process died at each block."""
        self.starts[actor] += 1
        self.deaths.update(self.blocks.pop(actor, ()))
        return self.starts[actor] - 1, dict(self.deaths)

    def record_block(self, actor: str, block: Block, done: bool) -> None:
        """Records that an actor begins to map a block, or has mapped it."""
        blocks = self.blocks.setdefault(actor, set())
        if done:
            blocks.discard(block)
            self.starts[actor] = 1
        else:
            blocks.add(block)

    def record_memory(self, node: str, worker: str, size: int) -> None:
        """Records the current memory of a worker, in bytes."""
        self.peaks[node, worker] = max(size, self.peaks.get((node, worker), 0))

    def nodes(self) -> dict[str, dict[str, int]]:
        """Returns for each node the rows that were finished there, the number of workers, and the sum of their peaks in
        bytes."""
        found = {}
        for node in sorted({*self.rows, *(node for node, _ in self.peaks)}):
            peaks = [peak for (at, _), peak in self.peaks.items() if at == node]
            found[node] = {"rows": self.rows[node], "processes": len(peaks), "peak_memory_bytes": sum(peaks)}
        return found

    def record_error(self, cause: TesseraError) -> None:
        """Records the error of a worker. Only the first one is kept."""
        self.cause = self.cause or cause

    def first_error(self) -> TesseraError | None:
        return self.cause


class RunCounter:
    """The driver's client of the counter. If the actor does not answer, progress is not shown, and the run goes on.

    Args:
        until: no unit is begun after this time, in seconds since the epoch of the driver's node. None: no limit.
    """

    def __init__(self, until: float | None = None) -> None:
        # on the driver's node, so that a lost node does not take it along. After a restart it is empty
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor: Any = _CounterActor.options(scheduling_strategy=here, max_restarts=-1).remote(until)  # type: ignore[attr-defined]  # Ray has no types
        self.begun: frozenset[str] | None = None
        """After `close`: names of the units that were begun, in a run with a deadline."""
        self.nodes: dict[str, dict[str, int]] | None = None
        """After `close`: for each node the rows that were finished there, the number of worker processes, and the sum
        of their memory peaks in bytes."""

    def read(self) -> list[int]:
        """Returns the sums of `progress.count_rows` over all workers."""
        with suppress(Exception):
            return list(ray.get(self.actor.read.remote(), timeout=_ANSWER_S))
        return [0, 0, 0]

    def cause(self) -> TesseraError | None:
        """Returns the first error that a worker reported."""
        with suppress(Exception):
            return cast("TesseraError | None", ray.get(self.actor.first_error.remote(), timeout=_ANSWER_S))
        return None

    def close(self) -> None:
        """Reads what the nodes did, and ends the actor."""
        with suppress(Exception):
            self.nodes = ray.get(self.actor.nodes.remote(), timeout=_ANSWER_S)
            if (begun := ray.get(self.actor.begun_units.remote(), timeout=_ANSWER_S)) is not None:
                self.begun = frozenset(begun)
        ray.kill(self.actor)


class WorkerReports:
    """A worker's client of the counter. If the actor does not answer, reports are lost, but no rows.

    Args:
        counter: actor handle of the run's counter.
    """

    def __init__(self, counter: Any) -> None:
        self.counter = counter
        context = ray.get_runtime_context()
        self.node, self.worker = context.get_node_id(), context.get_worker_id()
        self.actor = context.get_actor_id()  # Ray keeps the id when it replaces the process. None: in a task
        self._next = 0.0
        self.deaths: dict[Block, int] = {}

    def start(self) -> None:
        """Call it before stages are set up. Raises ``TesseraError`` if one process of the actor after another died:
        Ray would start more of them for ever, for example if memory is short."""
        deaths = 0
        if self.actor is not None:
            with suppress(Exception):
                asked = self.counter.record_start.remote(self.actor)
                deaths, self.deaths = ray.get(asked, timeout=_ERROR_ANSWER_S)
        if deaths >= _MAX_DEATHS:
            raise TesseraError(f"{deaths} processes of an actor died, and none mapped a block: is memory short?")

    def begin_block(self, table: pa.Table) -> Block | None:
        """Call it before a block. Returns its name. Raises ``TesseraError`` if too many processes died at it."""
        if self.actor is None or not len(table) or "window" not in table.column_names:
            return None
        block = table["sample_id"][0].as_py(), table["window"][0].as_py()
        if (deaths := self.deaths.get(block, 0)) >= _MAX_DEATHS:
            words = f"{deaths} processes of actors died at the block that begins with {block[0]!r}, window {block[1]}"
            raise TesseraError(f"{words}: is memory short?")
        self.counter.record_block.remote(self.actor, block, False)
        return block

    def refused_units(self, names: list[str], begins: bool) -> list[str]:
        """Returns those of some units that must not be begun any more; ``begins``: the others are begun now.

        Without an answer all are begun: if a part of a unit was refused before, the run's books do not balance, nothing
        is committed, and the next run continues.
        """
        with suppress(Exception):
            return list(ray.get(self.counter.refused_units.remote(names, begins), timeout=_ERROR_ANSWER_S))
        return []

    def add(self, samples: int, rows: int, failed: int) -> None:
        """Reports finished rows."""
        self.counter.add.remote(self.node, samples, rows, failed)

    def end_block(self, block: Block | None) -> None:
        """Call it after a block. Reports the memory of this process and its children every few seconds."""
        if block is not None:
            self.counter.record_block.remote(self.actor, block, True)
        if (now := time.monotonic()) >= self._next:
            self._next = now + _MEMORY_EVERY_S
            self.counter.record_memory.remote(self.node, self.worker, memory_of_processes())

    def record_error(self, cause: TesseraError) -> None:
        """Reports the error of a worker, and waits until the counter has it."""
        ray.wait([self.counter.record_error.remote(cause)], timeout=_ERROR_ANSWER_S)
