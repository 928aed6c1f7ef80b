"""A pipeline as data: what runs, in which order, in which workers. Frozen values, made before anything runs.

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
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.units import Unit


@dataclass(frozen=True)
class WorkersSpec:
    """The workers of one step.

    Args:
        kind: ``tasks``: short tasks, placed anywhere; ``pool``: long-lived workers that hold models.
        num_cpus: CPUs that one worker asks for. None: the engine divides what there is.
        num_gpus: GPUs of one worker, fractions allowed. None: the engine divides what there is.
        min_workers, max_workers: None: the engine's choice.
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
        limits: of the sandbox that the stage runs in. None: it runs in the worker itself.
        block_rows: the stage hands on blocks of at most so many rows. None: a block for each block.
        splitter: splits a block that would take too much memory. None: blocks are taken as they come.
        journaled: a worker that dies costs the row that killed it. The stage takes a `RowJournal` as second argument
            and then maps row by row.
        own_process: where the engine has a fork server, the stage runs in a process forked from it, which spares the
            worker its imports.
    """

    name: str
    stage: Any
    workers: str
    limits: LimitsConfig | None = None
    block_rows: int | None = None
    splitter: BlockSplitter | None = None
    journaled: bool = False
    own_process: bool = False


@dataclass(frozen=True)
class SinkSpec:
    """Where finished rows go.

    Args:
        open_writer: name of a write task -> its writer.
        run_id: the prefix of all names.
        min_rows: a write task takes at least so many rows, as far as there are.
    """

    open_writer: Callable[[str], ShardWriter]
    run_id: str
    min_rows: int


@dataclass(frozen=True)
class Step:
    """Consecutive stages that share their workers, so that a block moves once between steps."""

    name: str
    workers: WorkersSpec
    stages: tuple[StageSpec, ...]


@dataclass(frozen=True)
class PipelineSpec:
    """Stages in the order in which blocks go through them, and the sink.

    Raises:
        ValueError: a stage without workers, workers without a stage, or workers that are left and entered again.
    """

    stages: tuple[StageSpec, ...]
    workers: Mapping[str, WorkersSpec]
    sink: SinkSpec
    block_rows: int
    """Rows of a block at most, where it enters a pool."""

    def __post_init__(self) -> None:
        names = [name for name, _ in groupby(stage.workers for stage in self.stages)]
        if len(set(names)) < len(names) or set(names) != set(self.workers):
            raise ValueError(f"stages run in {names}, the workers are {list(self.workers)}")

    @property
    def steps(self) -> list[Step]:
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
    """What an engine did."""

    written: Written = field(default_factory=Written)
    first_row_at: float | None = None
    """When the first row was finished, in seconds since the epoch. None: there was none."""
    workers: dict[str, int] | None = None
    """How many worker processes there were, and the sum of their peaks of memory in bytes. None: none but this one."""
    devices: dict[str, float] | None = None
    """Nodes, CPUs and GPUs that the engine had. None: nothing was computed."""


class Engine(Protocol):
    """Runs a `PipelineSpec`. ``ray`` for clusters and pools of GPU actors; ``inline`` in this process."""

    name: str

    def check(self) -> None:
        """Raises ``ConfigError`` for what cannot work, without starting anything."""
        ...

    def start_early(self) -> None:
        """Begins to start while other checks go on. What fails here is reported by `execute`."""
        ...

    def gpus(self) -> float:
        """Returns how many GPUs the engine has. May start it."""
        ...

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        """Maps all units through all stages into the sink.

        Args:
            samples: that the units hold, for the progress display.
            terminal: where progress is shown. None: nowhere.

        Raises:
            ConfigError: a mistake that only a worker could find.
            TesseraError: the run broke off; the message has the cause.
        """
        ...
