"""Engines run a spec of stages. They decide where and when a block runs, never what comes out.

spec.py       PipelineSpec and StageSpec: what runs, in which order, in which workers; and what an engine returns
inline.py     the engine for tests and debugging: block after block, in this process
ray/          the engine on Ray Data, for clusters and pools of GPU actors
progress.py   the progress bar of a run
memory.py     the memory of this process and its children
errors.py     errors of an engine as the error that a user reads

It may import `stages`, `sandbox` and everything below them.
"""

from __future__ import annotations

from typing import Literal

from pipeline.config.models import ComputeConfig
from pipeline.engine.spec import Engine

EngineName = Literal["ray", "inline"]
ENGINES: tuple[EngineName, ...] = ("ray", "inline")


def build(name: EngineName, compute: ComputeConfig, fork_server: str | None = None) -> Engine:
    """Returns the engine of that name. Imports Ray only for ``ray``.

    Args:
        fork_server: address of the fork server on this machine. None: there is none.
    """
    if name == "inline":
        from pipeline.engine.inline import InlineEngine

        return InlineEngine()
    from pipeline.engine.ray.engine import RayEngine

    return RayEngine(compute, fork_server)
