"""Measures how fast a config runs on this machine, and what limits it.

corpus.py            the samples: those of the config, repeated
baseline.py          bare loops in one process with one thread, which give the ideal speed
end_to_end.py        whole runs of two sizes, observed from outside
reference.py         the same work by `transformers` alone
_reference_media.py  opens media for the reference
stage.py             the encoding stage compared with its models alone
gpu_utilization.py   how much of the time GPUs computed
fresh_process.py     runs each measurement in a process of its own
result.py            computes the result from the measurements
picture.py           the busy cores of a run over time, as SVG
show.py              prints the result on a terminal

The terms are those of `docs/performance.md`.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa

from pipeline import config as configs
from pipeline import sources
from pipeline.benchmark import baseline, corpus, end_to_end, reference, result, stage
from pipeline.benchmark.fresh_process import in_fresh_process, in_fresh_processes, on_gpu
from pipeline.config import features as binding
from pipeline.config.models import PipelineConfig
from pipeline.core import versions
from pipeline.core.errors import ConfigError
from pipeline.core.system import private_folder
from pipeline.stages import units

Measured = Literal["all", "encode"]

_DRAWN = 256
_BARE_S, _REFERENCE_S, _STAGE_S = 15.0, 10.0, 15.0
_SMALL_S = 20.0
"""Seconds of the small run at the ideal speed. The large run has three times as many rows."""


def measure(
    config: PipelineConfig,
    rows: int | None = None,
    against: Literal["reference"] | None = None,
    only: Measured = "all",
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures ``config`` with samples drawn from its corpus. Writes nothing to its output.

    Args:
        rows: rows of the small run. The large one has three times as many. None: as many as take about 20 s.
        against: ``reference``: also measure `transformers` alone.
        only: ``encode``: measure only the encoding stage, without Ray, and its models alone.
        log: called with a line of text before each measurement.

    Returns:
        Plain values with stable keys: ``machine``, and ``bare``, ``run``, ``reference`` or ``stage``.

    Raises:
        ConfigError: a mistake in the config.
        TesseraError: a run ended with an error.
    """
    address, where = config.compute.cluster()
    if address:
        raise ConfigError(where, f"a cluster at {address!r}", "leave it out: a benchmark is of this machine")
    if only == "encode" and (rows or against):
        raise ConfigError("--stage", "'encode' with --rows or --against", "they are of whole runs")
    with _folder() as folder:
        config = configs.here(config)
        features = binding.bind(config)
        log("draw samples from the corpus")
        samples = corpus.draw(config, _DRAWN)
        cores = float(config.compute.num_cpus or max(2, os.cpu_count() or 1))
        gpus = _gpus(config)
        measured: dict[str, Any] = {"machine": _machine(cores, gpus), "samples_drawn": len(samples)}
        if only == "encode":
            log("the encoding stage and the models alone, in turn")
            pair = in_fresh_process("the encoding stage", stage.measure, config, features, samples, _STAGE_S)
            return {**measured, "stage": result.of_stage(pair)}
        log("bare loops: decode and encode, one thread")
        found = in_fresh_process("the bare loops", baseline.measure, config, features, samples, _BARE_S)
        measured["bare"] = result.of_bare(found, cores, gpus)
        if not gpus:
            log(f"the same with all {cores:g} cores at work")
            each = in_fresh_processes(
                "the bare loops", round(cores), baseline.measure, config, features, samples, _BARE_S
            )
            measured["bare"] |= result.of_all_cores(each)
        if against == "reference":
            log("reference: transformers' own processor and model, one thread")
            loops = in_fresh_process("the reference", reference.measure, config, features, samples, _REFERENCE_S)
            measured["reference"] = result.of_reference(loops, cores, gpus)
        wanted = rows or round(_SMALL_S * measured["bare"]["ideal_rows_per_second"])
        count = max(1, round(wanted / found.rows_per_sample))
        measured["run"] = _measure_runs(config, samples, count, folder, measured, log)
        return measured


def _measure_runs(
    config: PipelineConfig,
    samples: pa.Table,
    count: int,
    folder: str,
    measured: dict[str, Any],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Runs ``count`` and three times ``count`` samples, and compares them with what was measured before."""
    # blocks of the same size, or the difference of the runs would include the cost of blocks
    block_rows = units.unit_rows(config, 3 * count)
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"block_rows": block_rows})})
    few, many = (_run(config, samples, count, times, folder, log) for times in (1, 3))
    found = result.of_walls(measured["bare"]["ideal_rows_per_second"], few, many)
    found["block_rows"] = block_rows
    if rate := measured["bare"].get("all_cores_rows_per_second"):
        found["of_all_cores"] = round(found["rows_per_second"] / rate, 4)
    if rate := measured.get("reference", {}).get("rows_per_second"):
        found["against_reference"] = round(found["rows_per_second"] / rate, 3)
    return found


def _run(
    config: PipelineConfig, samples: pa.Table, count: int, times: int, folder: str, log: Callable[[str], None]
) -> end_to_end.Wall:
    """Runs an extraction of ``count`` samples, ``times`` times each. No failure is over its budget."""
    log(f"a run of {count * times} samples")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        source = corpus.repeated(samples, count, times, own, sources.build(config.source).allowed_roots())
        failures = config.failures.model_copy(update={"max_fraction": 1.0, "max_rows": None, "allow_all": True})
        return end_to_end.run(config.model_copy(update={"source": source, "failures": failures}), own)


@contextmanager
def _folder() -> Iterator[str]:
    """Yields a temporary folder of this user only."""
    folder = private_folder.make("benchmark")
    try:
        yield folder
    finally:
        private_folder.remove(folder)


def _gpus(config: PipelineConfig) -> float:
    """Returns the number of GPUs of this machine, or 0 if no feature uses them."""
    if not on_gpu(config):
        return 0.0
    import torch

    return float(torch.cuda.device_count())


def _machine(cores: float, gpus: float) -> dict[str, Any]:
    device = None
    if gpus:
        import torch

        device = torch.cuda.get_device_name()
    return {
        "cores": cores,
        "gpus": gpus,
        "device": device,
        "processor": platform.processor() or platform.machine(),
        "versions": versions.installed(),
    }
