"""The engine for tests and debugging: runs a spec in this process, block after block. Nothing runs in parallel.

Sandboxed stages run in a worker process, as in every engine. With ``decoders.limits.isolate: false`` they run in this
process, where a debugger can reach them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import pyarrow as pa

from pipeline.engine.errors import as_user_error
from pipeline.engine.progress import Progress, count_rows
from pipeline.engine.spec import Execution, PipelineSpec, StageSpec
from pipeline.sandbox import SandboxedStage
from pipeline.stages.units import Unit, unit_table


class InlineEngine:
    """Maps one unit at a time through all stages. Reports no GPUs; encoders may still use one."""

    name = "inline"

    def check(self) -> None:
        """Does nothing: nothing can fail before a stage is set up."""

    def start_early(self) -> None:
        """Does nothing: there is nothing to start."""

    def gpus(self) -> float:
        """Returns 0."""
        return 0.0

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        counts, hosted = [0, 0, 0], [_hosted(stage) for stage in spec.stages]
        done = Execution(devices={"nodes": 1.0, "cpus": 1.0, "gpus": 0.0})
        writer = spec.sink.open_writer(f"{spec.sink.run_id}-000000")
        try:
            with Progress(samples, terminal, lambda: counts) as progress:
                for stage in hosted:
                    stage.setup()
                seconds = 0.0
                for table in _through(spec.stages, hosted, (unit_table(unit) for unit in work)):
                    for i, number in enumerate(count_rows(table)):
                        counts[i] += number
                    started = time.perf_counter()
                    writer.add(table)
                    seconds += time.perf_counter() - started
                started = time.perf_counter()
                done.written = writer.close()
                done.written.write_s = seconds + time.perf_counter() - started
            done.first_row_at = progress.first_row_at
        except BaseException as error:
            writer.abort()
            if isinstance(error, Exception):
                raise as_user_error(error, spec.sink.run_id) from error
            raise
        finally:
            for stage in hosted:
                if isinstance(stage, SandboxedStage):
                    stage.close()
        return done


def _hosted(spec: StageSpec) -> Any:
    """Returns the stage, in a sandbox if the spec has limits."""
    return spec.stage if spec.limits is None else SandboxedStage(spec.stage, spec.limits)


def _through(specs: Sequence[StageSpec], hosted: Sequence[Any], tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Maps ``tables`` through all stages, and yields the tables of the last one."""
    for spec, stage in zip(specs, hosted, strict=True):
        tables = _map(spec, stage, tables)
    yield from tables


def _map(spec: StageSpec, stage: Any, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Maps ``tables`` through one stage, and yields blocks of at most ``spec.block_rows``."""
    for table in tables:
        for part in [table] if spec.splitter is None else spec.splitter.split(table):
            done = stage(part)
            rows = spec.block_rows or max(1, len(done))
            yield from (done.slice(start, rows) for start in range(0, len(done), rows))
