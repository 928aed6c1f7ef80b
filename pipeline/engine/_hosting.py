"""Puts stages into the processes that their specs ask for, and maps blocks through them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.engine.spec import StageSpec
from pipeline.sandbox import SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from pipeline.sandbox.stage import NO_LIMITS


def is_sandboxed(spec: StageSpec) -> bool:
    """Returns whether a stage runs in a process of its own."""
    return spec.limits is not None or spec.journaled


def import_code_of(stages: Sequence[Any]) -> None:
    """Imports what ``stages``, which are sandboxed, need to be set up. Runs in a fork server."""
    for stage in stages:
        stage.import_code()


def hosted(spec: StageSpec, options: ProcessOptions | None = None) -> Any:
    """Returns the stage, in a supervised worker process if the spec has limits, or if a crash may cost one row only.

    Args:
        options: how worker processes are started. None: as new Python interpreters.
    """
    if spec.limits is not None:
        return SandboxedStage(spec.stage, spec.limits, options)
    if spec.journaled:
        return SandboxedStage(spec.stage, NO_LIMITS, options, journaled=True)
    return spec.stage


def hosted_for_thread(spec: StageSpec, options: ProcessOptions) -> Any:
    """`hosted`, but with a copy of a stage that runs in this process, since other threads have the stage too."""
    found = hosted(spec, options)
    return pickle.loads(pickle.dumps(found)) if found is spec.stage else found


def map_blocks(specs: Sequence[StageSpec], stages: Sequence[Any], tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Maps ``tables`` through all stages, and yields the tables of the last one. Nothing is computed ahead.

    Args:
        specs: the specs of the stages, in order.
        stages: the stages as `hosted` returned them, set up.
    """
    for spec, stage in zip(specs, stages, strict=True):
        tables = _map(spec, stage, tables)
    yield from tables


def _map(spec: StageSpec, stage: Any, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Maps ``tables`` through one stage, and yields blocks of at most ``spec.block_rows``."""
    for table in tables:
        for part in [table] if spec.splitter is None else spec.splitter.split(table):
            done = stage(part)
            rows = spec.block_rows or max(1, len(done))
            yield from (done.slice(start, rows) for start in range(0, len(done), rows))
