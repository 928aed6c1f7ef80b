"""The engine for tests and debugging: runs a spec in this process, block after block. Nothing runs in parallel.

Decoders run in a worker process, as in every engine. With ``decoders.limits.isolate: false`` they run in this process,
as encoders do, where a debugger can reach them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TextIO

from pipeline.engine._hosting import hosted, map_blocks
from pipeline.engine.errors import as_user_error
from pipeline.engine.node_check import NodeTask, Problem
from pipeline.engine.progress import Progress, count_rows
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.sandbox import SandboxedStage
from pipeline.stages.units import Unit, unit_table
from pipeline.telemetry import recording


class InlineEngine:
    """Maps one unit at a time through all stages. Reports no GPUs; encoders may still use one."""

    name = "inline"

    def check(self) -> None:
        """Does nothing: nothing can fail before a stage is set up."""

    def gpus(self, terminal: TextIO | None) -> float:
        """Returns 0."""
        return 0.0

    def check_nodes(
        self, spec: PipelineSpec, task: NodeTask, terminal: TextIO | None
    ) -> list[tuple[str, Problem | None]]:
        """Checks this machine."""
        return [(platform.node(), task.problem(0.0))]

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        units = takewhile(lambda _: spec.until is None or time.time() < spec.until, work)
        counts, stages = [0, 0, 0], [hosted(replace(stage, journaled=False)) for stage in spec.stages]
        done = Execution(devices={"nodes": 1.0, "cpus": 1.0, "gpus": 0.0})
        writer = spec.sink.open_writer(f"{spec.sink.run_id}-000000")
        try:
            with Progress(samples, terminal, lambda: counts) as progress:
                for stage in stages:
                    stage.setup()
                seconds = 0.0
                for table in map_blocks(spec.stages, stages, (unit_table(unit) for unit in units)):
                    for i, number in enumerate(count_rows(table)):
                        counts[i] += number
                    started = time.perf_counter()
                    writer.add(table)
                    seconds += time.perf_counter() - started
                    recording.count_table(table)
                started = time.perf_counter()
                done.written = writer.close()
                done.written.write_s = seconds + time.perf_counter() - started
                recording.count_files(done.written.shards, done.written.failure_shards, done.written.write_s)
            done.first_row_at = progress.first_row_at
        except BaseException as error:
            writer.abort()
            if isinstance(error, Exception):
                raise as_user_error(error, spec.sink.run_id) from error
            raise
        finally:
            for stage in stages:
                if isinstance(stage, SandboxedStage):
                    stage.close()
        return done
