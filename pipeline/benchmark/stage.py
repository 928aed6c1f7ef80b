"""The encoding stage by itself, without Ray, against the model alone: what it costs beside the model's own passes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import malloc
from pipeline.benchmark.alone import on_gpu, one_thread
from pipeline.config import PipelineConfig
from pipeline.features import Feature
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage

if TYPE_CHECKING:
    import torch

_BLOCKS = 4
_Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@dataclass
class Pair:
    """The same rows both ways, in turn: seconds of a wall clock, or of one CPU thread without a GPU."""

    rows: int = 0
    stage_s: float = 0.0
    model_s: float = 0.0


def measure(config: PipelineConfig, features: tuple[Feature, ...], samples: pa.Table, budget_s: float) -> Pair:
    """`EncodeStage` over a few blocks, in turn with the calls that it makes of its models, replayed on tensors that are
    on the device already, until ``budget_s`` is over."""
    import_module("torch")  # no part of either's time
    malloc.keep_pages()
    probe, decode, encode = (
        ProbeStage(config, features),
        DecodeStage(config, features),
        EncodeStage(config, features),
    )
    for stage in (probe, decode, encode):
        stage.setup()
    one_thread()
    gpu = on_gpu(config)
    clock: Callable[[], float] = time.perf_counter if gpu else time.process_time
    blocks = list(itertools.islice(_decoded(probe, decode, samples, config.block_rows), _BLOCKS))
    calls: list[list[_Call]] = []
    for block in blocks:  # warms up too
        with _recorded(encode) as made:
            encode(block)
        calls.append(made)
    done, since = Pair(), time.perf_counter()
    while not done.rows or time.perf_counter() - since < budget_s:
        for block, made in zip(blocks, calls, strict=True):
            started = clock()
            encode(block)
            _wait(gpu)
            done.stage_s += clock() - started
            if made:
                started = clock()
                _replay(made)
                _wait(gpu)
                done.model_s += clock() - started
            done.rows += len(block)
    return done


def _decoded(probe: ProbeStage, decode: DecodeStage, samples: pa.Table, block_rows: int) -> Iterator[pa.Table]:
    for start in range(0, len(samples), block_rows):
        rows = probe(samples.slice(start, block_rows))
        for first in range(0, len(rows), block_rows):
            yield decode(rows.slice(first, block_rows))


def _wait(gpu: bool) -> None:
    if gpu:
        import torch

        torch.cuda.synchronize()


@contextmanager
def _recorded(stage: EncodeStage) -> Iterator[list[_Call]]:
    """The outermost calls of modules of all the stage's models: module, arguments, options."""
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
        for module in model.modules():
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


def _replay(calls: list[_Call]) -> None:
    import torch

    with torch.inference_mode():
        for module, arguments, options in calls:
            with suppress(Exception):  # the stage has survived it too
                module(*arguments, **options)
