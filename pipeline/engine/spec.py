"""A pipeline as data: which stages run, in which order, in which workers. Frozen values, built before anything runs.

An engine takes a `PipelineSpec` and the units of work and returns an `Execution`. It decides where and when a block
runs, never what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Protocol, TextIO

from pipeline.dataset.shards.write_result import Written
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.decoders.limits import LimitsConfig
from pipeline.engine.node_check import NodeCheck, NodeTask, Problem
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.units import Unit
from pipeline.storage.settings import DEFAULT, StorageConfig
from pipeline.telemetry.config import NO_METRICS, MetricsConfig


@dataclass(frozen=True)
class WorkersSpec:
    """The workers of one step.

    Args:
        kind: ``tasks``: short tasks, placed anywhere; ``pool``: long-lived workers that hold models.
        num_cpus: CPUs that one worker asks for. None: the engine divides what there is.
        num_gpus: GPUs of one worker, fractions allowed. None: the engine divides what there is.
        min_workers, max_workers: size of a pool. None: the engine decides.
        concurrent_blocks: blocks that one worker maps at a time, in threads over one copy of its models.
    """

    kind: Literal["tasks", "pool"]
    num_cpus: float | None = None
    num_gpus: float | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    concurrent_blocks: int = 1


@dataclass(frozen=True)
class StageSpec:
    """One stage: a picklable object with ``setup()`` that maps an Arrow table to an Arrow table.

    Args:
        workers: name of the workers, in `PipelineSpec.workers`. Consecutive stages of the same workers are one step.
        limits: limits of the sandbox that the stage runs in. None: the stage runs in the worker itself.
        block_rows: most rows of a block that the stage returns. None: one block for each block.
        splitter: splits a block that would take too much memory. None: blocks are not split.
        journaled: if a worker dies, only the row that killed it fails. The stage takes a `RowJournal` as its second
            argument; with one, it maps row by row.
    """

    name: str
    stage: Any
    workers: str
    limits: LimitsConfig | None = None
    block_rows: int | None = None
    splitter: BlockSplitter | None = None
    journaled: bool = False


@dataclass(frozen=True)
class SinkSpec:
    """Where finished rows are written.

    Args:
        open_writer: returns the writer of a write task, by the name of the task.
        run_id: prefix of the names of all write tasks.
        min_rows: fewest rows of a write task, if there are as many.
    """

    open_writer: Callable[[str], ShardWriter]
    run_id: str
    min_rows: int


@dataclass(frozen=True)
class Step:
    """Consecutive stages with the same workers. A block moves between processes only between steps."""

    name: str
    workers: WorkersSpec
    stages: tuple[StageSpec, ...]


@dataclass(frozen=True)
class PipelineSpec:
    """The stages in the order in which blocks pass through them, their workers, and the sink.

    Raises:
        ValueError: a stage without workers, workers without a stage, or stages of the same workers that are not
            consecutive.
    """

    stages: tuple[StageSpec, ...]
    workers: Mapping[str, WorkersSpec]
    sink: SinkSpec
    block_rows: int
    """Most rows of a block that enters a pool."""
    shares_gpus: bool = False
    """Whether pools that declare no GPUs share those of the engine."""
    task_bytes: int = 0
    """Estimated memory of a worker that decodes, in bytes."""
    node_check: NodeCheck | None = None
    """What each node of a cluster needs. None: it is not checked."""
    model_bytes: int = 0
    """Estimated memory of all models, in bytes: what a worker that encodes takes besides."""
    storage: StorageConfig = DEFAULT
    """How workers on other machines reach storages."""
    metrics: MetricsConfig = NO_METRICS
    """Whether workers on Ray count for its agents."""
    until: float | None = None
    """No unit is begun after this time, in seconds since the epoch; those that were begun are finished. None: all units
    are mapped."""

    def __post_init__(self) -> None:
        names = [name for name, _ in groupby(stage.workers for stage in self.stages)]
        if len(set(names)) < len(names) or set(names) != set(self.workers):
            raise ValueError(f"stages run in {names}, the workers are {list(self.workers)}")

    @property
    def steps(self) -> list[Step]:
        """The stages grouped by workers, in order."""
        grouped = groupby(self.stages, key=lambda stage: stage.workers)
        return [Step(name, self.workers[name], tuple(stages)) for name, stages in grouped]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the spec as plain values, one row for each stage, as ``--plan`` prints it."""
        found: list[dict[str, Any]] = []
        for step in self.steps:
            for stage in step.stages:
                found.append(
                    {
                        "stage": stage.name,
                        "workers": step.name,
                        "kind": step.workers.kind,
                        "cpus": step.workers.num_cpus,
                        "gpus": step.workers.num_gpus,
                        "min_workers": step.workers.min_workers,
                        "max_workers": step.workers.max_workers,
                        "block_rows": stage.block_rows or self.block_rows,
                        "sandbox": None if stage.limits is None else stage.limits.model_dump(mode="json"),
                    }
                )
        return found


@dataclass
class Execution:
    """The result of an engine."""

    written: Written = field(default_factory=Written)
    first_row_at: float | None = None
    """When the first row was finished, in seconds since the epoch. None: there was none."""
    workers: dict[str, int] | None = None
    """Number of worker processes, and the sum of their memory peaks in bytes. None: there was only this process."""
    devices: dict[str, float] | None = None
    """Nodes, CPUs and GPUs that the engine had. None: nothing was computed."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    """For each machine: ``name``, ``alive``, ``cpus``, ``gpus``, ``gpu_names``, and what it did: ``rows``,
    ``processes``, ``peak_memory_bytes``."""
    ray_job: str | None = None
    """Id of the job in Ray. None: the engine is not Ray."""
    warnings: list[str] = field(default_factory=list)
    begun: frozenset[str] | None = None
    """Names of the units that were begun. None: all, or that is not known."""


class Engine(Protocol):
    """Runs a `PipelineSpec`: ``local`` on one machine, ``ray`` on a cluster, ``inline`` in this process."""

    name: str

    def check(self) -> None:
        """Raises ``ConfigError`` if the engine cannot work. Starts nothing."""
        ...

    def gpus(self, terminal: TextIO | None) -> float:
        """Returns how many GPUs the engine has. May start the engine, and wait for nodes."""
        ...

    def check_nodes(
        self, spec: PipelineSpec, task: NodeTask, terminal: TextIO | None
    ) -> list[tuple[str, Problem | None]]:
        """Returns the name of each machine that would compute, and what it lacks; None: nothing.

        Raises:
            ConfigError: pools ask for more than all machines have.
        """
        ...

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        """Maps all units through all stages into the sink.

        Args:
            samples: number of samples in the units, for the progress bar.
            terminal: where progress is shown. None: nowhere.

        Raises:
            ConfigError: a mistake that only a worker could find.
            TesseraError: the run broke off. The message has the cause.
        """
        ...
