"""The engine on Ray Data, for clusters and pools of GPU actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from pipeline.config.models import ComputeConfig
from pipeline.engine.errors import as_user_error
from pipeline.engine.node_check import NodeTask, Problem
from pipeline.engine.progress import Progress
from pipeline.engine.ray import cluster, graph, nodes, preflight
from pipeline.engine.ray import metrics as ray_metrics
from pipeline.engine.ray.counter import RunCounter
from pipeline.engine.ray.pools import PoolSize, sizes
from pipeline.engine.ray.sink import ShardSink
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.stages.units import Unit


class RayEngine:
    """Joins or starts a Ray cluster, and keeps it for later runs of this process."""

    name = "ray"

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        self.warnings: list[str] = []
        self._has_waited = False

    def check(self) -> None:
        cluster.check(self.compute)

    def gpus(self, terminal: TextIO | None) -> float:
        self._join(terminal)
        found = sum(node.gpus for node in nodes.capacities())
        if found and self.compute.missing_gpus == "use_cpu" and not preflight.any_device():
            self.warnings = [f"nodes declare {found:g} GPUs, and have no device: encoders ran on CPUs"]
            return 0.0
        return found

    def _join(self, terminal: TextIO | None) -> None:
        cluster.start(self.compute)
        if not self._has_waited:
            cluster.wait_for_nodes(self.compute, terminal)
        self._has_waited = True

    def check_nodes(
        self, spec: PipelineSpec, task: NodeTask, terminal: TextIO | None
    ) -> list[tuple[str, Problem | None]]:
        self._join(terminal)
        found = preflight.ask_nodes(task)
        self._sizes(spec, 1)
        return found

    def _sizes(self, spec: PipelineSpec, blocks: int) -> dict[str, PoolSize]:
        """Returns the sizes of the pools. Raises ``ConfigError`` if they do not fit on the nodes."""
        pools = {step.name: step.workers for step in spec.steps if step.workers.kind == "pool"}
        is_cluster = self.compute.cluster()[0] is not None
        return sizes(pools, nodes.capacities(), spec.shares_gpus, _task_cpus(spec), blocks, is_cluster)

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        self._join(terminal)
        before, late = nodes.living(), None
        if spec.node_check is not None:
            late = preflight.check_nodes(spec.node_check, work[0], self.compute.cluster()[0] is not None)
        found = self._sizes(spec, len(work))
        sink = ShardSink(spec.sink.open_writer, spec.sink.run_id, spec.sink.min_rows, spec.storage, spec.metrics)
        ray_metrics.use(spec.metrics, repeats=True)
        counter = RunCounter(spec.until)
        progress = Progress(samples, terminal, counter.read)
        try:
            with progress, cluster.capacity_watchdog(found, _task_cpus(spec), progress, before):
                try:
                    graph.execute(spec, work, found, counter.actor, sink, late)
                except Exception as error:
                    user_error = as_user_error(error, spec.sink.run_id, counter.cause())
                    cluster.release_actors(error)
                    raise user_error from error
        finally:
            counter.close()
            ray_metrics.stop()
        described = nodes.describe(before, counter.nodes or {})
        workers = None
        if counter.nodes is not None:
            workers = {key: sum(one[key] for one in described) for key in ("processes", "peak_memory_bytes")}
        job, begun = nodes.job_id(), counter.begun
        return Execution(
            sink.written, progress.first_row_at, workers, nodes.totals(), described, job, self.warnings, begun
        )


def _task_cpus(spec: PipelineSpec) -> float:
    """Returns the CPUs of the largest task."""
    return max((one.num_cpus or 0.0 for one in spec.workers.values() if one.kind == "tasks"), default=0.0)
