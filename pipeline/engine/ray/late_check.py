"""Checks a node that joined a cluster during a run, in each worker that starts there."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import ray

from pipeline.core.errors import ConfigError
from pipeline.engine.node_check import NodeTask


@dataclass(frozen=True)
class LateCheck:
    """What `preflight` asks the nodes that are there before a run, for those that join later. Without it a node with
    other weights or versions would compute other values.

    Args:
        task: the check.
        checked: ids of the nodes that were checked before the run.
    """

    task: NodeTask
    checked: frozenset[str]

    def check_this_node(self) -> None:
        """Raises ``ConfigError`` if this node joined during the run and lacks something."""
        if ray.get_runtime_context().get_node_id() in self.checked:
            return
        problem = self.task.problem(float(len(ray.get_gpu_ids())))
        if problem is not None:
            where, found, allowed = problem
            raise ConfigError(where, f"node {platform.node()}, which joined during the run: {found}", allowed)
