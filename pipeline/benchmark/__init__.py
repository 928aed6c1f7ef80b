"""How fast a config goes on this machine, and what holds it back.

corpus.py      what it runs over: the config's own samples, repeated
baseline.py        the bare loops, in one process with one thread: what the ideal is made of
end_to_end.py      whole runs of two sizes, looked at from outside
reference.py   what people write today
stage.py       the encoding stage against its models alone
gpu_utilization.py what GPUs did meanwhile
fresh_process.py   a process of its own for each of these
result.py      the arithmetic
picture.py     a run's cores over time, as SVG
show.py        the result for a terminal

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
from pipeline.benchmark.fresh_process import at_once, in_fresh_process, on_gpu
from pipeline.config import features as binding
from pipeline.config.models import PipelineConfig
from pipeline.core import private_folder, versions
from pipeline.core.errors import ConfigError
from pipeline.stages import units

Stage = Literal["all", "encode"]

_DRAWN = 256
_BARE_S, _REFERENCE_S, _STAGE_S = 15.0, 10.0, 15.0
_SMALL_S = 20.0
"""The small run has rows for so long, at the ideal's speed; the large one three times as many."""


def measure(
    config: PipelineConfig,
    rows: int | None = None,
    against: Literal["reference"] | None = None,
    only: Stage = "all",
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure ``config`` over samples drawn from its corpus; nothing is written to its output.

    Args:
        rows: of the small run; the large one has three times as many. None: as many as take about 20 s.
        only: ``encode``: only the encoding stage, without Ray, against the models alone.
        tell: is told what is being measured.

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
        raise ConfigError("--stage", "'encode' beside --rows or --against", "they are of whole runs")
    with _folder() as folder:
        config = configs.here(config)
        features = binding.bind(config)
        tell("draw samples from the corpus")
        samples = corpus.draw(config, _DRAWN)
        cores = float(config.compute.num_cpus or max(2, os.cpu_count() or 1))
        gpus = _gpus(config)
        told: dict[str, Any] = {"machine": _machine(cores, gpus), "samples_drawn": len(samples)}
        if only == "encode":
            tell("the encoding stage and the models alone, in turn")
            pair = in_fresh_process("the encoding stage", stage.measure, config, features, samples, _STAGE_S)
            return {**told, "stage": result.of_stage(pair)}
        tell("bare loops: decode and encode, one thread")
        found = in_fresh_process("the bare loops", baseline.measure, config, features, samples, _BARE_S)
        told["bare"] = result.of_bare(found, cores, gpus)
        if not gpus:
            tell(f"the same with all {cores:g} cores at work")
            each = at_once("the bare loops", round(cores), baseline.measure, config, features, samples, _BARE_S)
            told["bare"] |= result.of_all_cores(each)
        if against == "reference":
            tell("reference: transformers' own processor and model, one thread")
            loops = in_fresh_process("the reference", reference.measure, config, features, samples, _REFERENCE_S)
            told["reference"] = result.of_reference(loops, cores, gpus)
        wanted = rows or round(_SMALL_S * told["bare"]["ideal_rows_per_second"])
        count = max(1, round(wanted / found.rows_per_sample))
        # blocks of one size, or what they cost would not be in the difference
        block_rows = units.unit_rows(config, 3 * count)
        config = config.model_copy(update={"compute": config.compute.model_copy(update={"block_rows": block_rows})})
        few, many = (_run(config, samples, count, times, folder, tell) for times in (1, 3))
        told["run"] = result.of_walls(told["bare"]["ideal_rows_per_second"], few, many)
        told["run"]["block_rows"] = block_rows
        if rate := told["bare"].get("all_cores_rows_per_second"):
            told["run"]["of_all_cores"] = round(told["run"]["rows_per_second"] / rate, 4)
        if told.get("reference", {}).get("rows_per_second"):
            ratio = told["run"]["rows_per_second"] / told["reference"]["rows_per_second"]
            told["run"]["against_reference"] = round(ratio, 3)
        return told


def _run(
    config: PipelineConfig, samples: pa.Table, count: int, times: int, folder: str, tell: Callable[[str], None]
) -> end_to_end.Wall:
    tell(f"a run of {count * times} samples")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        source = corpus.repeated(samples, count, times, own, sources.build(config.source).allowed_roots())
        failures = config.failures.model_copy(update={"max_fraction": 1.0, "max_rows": None, "allow_all": True})
        return end_to_end.run(config.model_copy(update={"source": source, "failures": failures}), own)


@contextmanager
def _folder() -> Iterator[str]:
    folder = private_folder.make("benchmark")
    try:
        yield folder
    finally:
        private_folder.remove(folder)


def _gpus(config: PipelineConfig) -> float:
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
