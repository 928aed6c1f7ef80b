"""Measures the encoding stage without Ray, compared with the forward passes of its models alone.

With a GPU the stage encodes several tables at the same time, as in an actor. One thread replays the models' calls.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.benchmark.fresh_process import on_gpu, one_thread
from pipeline.benchmark.gpu_utilization import Busy
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.system import allocator
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import CALLS_ON_GPU, EncodeStage
from pipeline.stages.probe import ProbeStage

if TYPE_CHECKING:
    import torch

_BLOCKS = 4
_TURN_S = 3.0
"""Shortest turn of the stage with a GPU, in seconds: its first and last tables overlap with no other."""
_Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass
class Pair:
    """What the stage and its models took for the same rows: wall seconds, or CPU seconds of one thread if no GPU."""

    rows: int = 0
    stage_s: float = 0.0
    model_s: float = 0.0
    gpu_utilization: float | None = None
    """Part of the stage's time in which the device computed. None: not measured."""


def measure(config: PipelineConfig, features: tuple[BoundFeature, ...], samples: pa.Table, budget_s: float) -> Pair:
    """Runs `EncodeStage` over a few blocks and replays its calls of the models, in turn, for about ``budget_s`` s.

    The replayed calls take tensors that are already on the device.
    """
    import_module("torch")  # so that its import is not measured
    allocator.keep_pages()
    probe, decode, encode = (
        ProbeStage(config, features),
        DecodeStage(config, features),
        EncodeStage(config, features),
    )
    for stage in (probe, decode, encode):
        stage.setup()
    one_thread()
    gpu = on_gpu(config)
    blocks = list(itertools.islice(_decoded(probe, decode, samples, config.block_rows), _BLOCKS))
    calls: list[list[_Call]] = []
    for block in blocks:  # also warms up
        with _recorded(encode) as made:
            encode(block)
        calls.append(made)
    done, since = Pair(), time.perf_counter()
    if gpu:
        _on_gpu(encode, blocks, calls, budget_s, done)
        return done
    while not done.rows or time.perf_counter() - since < budget_s:
        for block, made in zip(blocks, calls, strict=True):
            started = time.process_time()
            encode(block)
            done.stage_s += time.process_time() - started
            if made:
                started = time.process_time()
                _replay(made)
                done.model_s += time.process_time() - started
            done.rows += len(block)
    return done


def _on_gpu(encode: EncodeStage, blocks: list[pa.Table], calls: list[list[_Call]], budget_s: float, done: Pair) -> None:
    """Measures the stage and its models in turn over the same tables, in wall seconds, and adds to ``done``."""
    import torch

    def models() -> None:
        for made in calls:
            _replay(made)

    spans, times, since = [], 1, time.perf_counter()
    with ThreadPoolExecutor(CALLS_ON_GPU) as threads, Busy() as gpu_utilization:

        def stage() -> None:
            for _ in threads.map(encode, blocks * times):
                pass

        times = max(1, math.ceil(_TURN_S / _clocked(stage, torch.cuda.synchronize)))
        while not done.rows or time.perf_counter() - since < budget_s:
            begun = time.time()
            done.stage_s += _clocked(stage, torch.cuda.synchronize)
            spans.append((begun, time.time()))
            done.model_s += times * _clocked(models, torch.cuda.synchronize) if any(calls) else 0.0
            done.rows += times * sum(map(len, blocks))
    done.gpu_utilization = gpu_utilization.within(spans)


def _clocked(work: Callable[[], None], wait: Callable[[], None]) -> float:
    """Returns the wall seconds of ``work``. ``wait``: waits until the device is done."""
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def _decoded(probe: ProbeStage, decode: DecodeStage, samples: pa.Table, block_rows: int) -> Iterator[pa.Table]:
    """Yields decoded blocks of ``samples``."""
    for start in range(0, len(samples), block_rows):
        rows = probe(samples.slice(start, block_rows))
        for first in range(0, len(rows), block_rows):
            yield decode(rows.slice(first, block_rows))


@contextmanager
def _recorded(stage: EncodeStage) -> Iterator[list[_Call]]:
    """Yields a list that collects the outermost module calls of the stage's models: module, arguments, options."""
    made: list[_Call] = []
    depth = 0

    def enter(module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        nonlocal depth
        if depth == 0:
            made.append((module, arguments, options))
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    models = {id(one): one for encoder in stage.encoders.values() if (one := getattr(encoder, "model", None))}
    hooks = []
    for model in models.values():
        for name, module in model.named_modules():
            if any(
                part.isdigit() for part in name.split(".")
            ):  # a layer, which another module calls, and which may be compiled
                continue
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


def _replay(calls: list[_Call]) -> None:
    """Makes the recorded calls again."""
    import torch

    with torch.inference_mode():
        for module, arguments, options in calls:
            with suppress(Exception):  # the stage handles such an error too
                module(*arguments, **options)
