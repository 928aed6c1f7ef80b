"""Engines run a spec of stages. They decide where and when a block runs, never what comes out.

spec.py          PipelineSpec and StageSpec: what runs, in which order, in which workers; what an engine returns
local.py         the engine for one machine: forked worker processes, no Ray
local_layout.py  which workers a run on one machine has, and the GPUs of each
_local_worker.py  one of these workers: threads, and the processes of its stages
_block_queue.py  the blocks that wait for a phase of a run on one machine
_shard_pool.py   writes the finished rows of several threads
inline.py        the engine for tests and debugging: block after block, in this process
_hosting.py      puts stages into the processes that their specs ask for
ray/             the engine on Ray Data, for clusters and pools of GPU actors
progress.py      the progress bar of a run
node_check.py    what each node of a cluster needs before a run
memory.py        the memory of this process and its children
errors.py        errors of an engine as the error that a user reads

It may import `stages`, `sandbox` and everything below them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from pipeline.config.bound import HasAddress
from pipeline.config.models import ComputeConfig, EngineConfig, EngineName
from pipeline.core.errors import TesseraError
from pipeline.core.system.devices import visible_gpus
from pipeline.engine.spec import Engine
from pipeline.telemetry.config import MetricsConfig

ENGINES: tuple[EngineName, ...] = ("local", "ray", "inline")


def choose(config: EngineConfig, compute: ComputeConfig, wants_gpu: bool) -> tuple[EngineName, str]:
    """Returns the engine that a config asks for, and why. Imports neither Ray nor torch.

    Args:
        wants_gpu: whether a pool may use GPUs.
    """
    address, where = compute.cluster()
    if config.kind != "auto":
        return config.kind, "by name"
    if address:
        return "ray", f"{where} is set"
    if wants_gpu and (gpus := len(visible_gpus())):
        return "ray", f"{gpus} GPUs are visible" if gpus > 1 else "a GPU is visible"
    return "local", "one machine without GPUs"


def build(name: EngineName, compute: ComputeConfig, fork_server: HasAddress | None = None) -> Engine:
    """Returns the engine of that name. Imports Ray only for ``ray``.

    Args:
        fork_server: the fork server on this machine, which only ``local`` needs. None: there is none.
    """
    if name == "inline":
        from pipeline.engine.inline import InlineEngine

        return InlineEngine()
    if name == "local":
        from pipeline.engine.local import LocalEngine

        return LocalEngine(compute, fork_server)
    from pipeline.engine.ray.engine import RayEngine

    return RayEngine(compute)


def export_gauges(name: EngineName | Literal["auto"], compute: ComputeConfig, metrics: MetricsConfig) -> None:
    """Has the gauges of this process exported until it ends, by the agent of its node of a Ray cluster.

    For gauges that are set when no stages run, such as those of a night. Joins the cluster if this process has not.
    Does nothing on other engines, for a Ray that would start for this only, or if the cluster does not answer.
    """
    if name in ("ray", "auto") and metrics.ray and compute.cluster()[0] is not None:
        from pipeline.engine.ray import cluster
        from pipeline.engine.ray import metrics as ray_metrics

        with suppress(TesseraError):
            cluster.start(compute)
            ray_metrics.use(metrics, repeats=True)
