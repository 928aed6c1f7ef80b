"""The engine on Ray Data, for clusters and pools of GPU actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError
from pipeline.engine.errors import as_user_error
from pipeline.engine.node_check import NodeTask, Problem
from pipeline.engine.progress import Progress
from pipeline.engine.ray import cluster, graph, nodes, preflight
from pipeline.engine.ray.counter import RunCounter
from pipeline.engine.ray.pools import sizes
from pipeline.engine.ray.sink import ShardSink
from pipeline.engine.spec import Execution, PipelineSpec
from pipeline.stages.units import Unit


class RayEngine:
    """Joins or starts a Ray cluster, and keeps it for later runs of this process."""

    name = "ray"

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        self.warnings: list[str] = []

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
        cluster.wait_for_nodes(self.compute, terminal)

    def check_nodes(self, task: NodeTask, terminal: TextIO | None) -> list[tuple[str, Problem | None]]:
        self._join(terminal)
        return preflight.ask_nodes(task)

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        self._join(terminal)
        before = nodes.living()
        if spec.node_check is not None:
            preflight.check_nodes(spec.node_check, work[0])
        task_cpus = max((one.num_cpus or 0.0 for one in spec.workers.values() if one.kind == "tasks"), default=0.0)
        pools = {step.name: step.workers for step in spec.steps if step.workers.kind == "pool"}
        is_cluster = self.compute.cluster()[0] is not None
        found = sizes(pools, nodes.capacities(), spec.shares_gpus, task_cpus, len(work), is_cluster)
        task = None if spec.node_check is None else preflight.task_of(spec.node_check, work[0])

        def ask(node: str) -> str | None:
            problems = [] if task is None else preflight.ask_nodes(task, [node])
            return next((str(ConfigError(*problem)) for _, problem in problems if problem is not None), None)

        sink = ShardSink(spec.sink.open_writer, spec.sink.run_id, spec.sink.min_rows, spec.storage)
        counter = RunCounter()
        progress = Progress(samples, terminal, counter.read)
        try:
            with progress, cluster.capacity_watchdog(found, task_cpus, progress, ask):
                try:
                    graph.execute(spec, work, found, counter.actor, sink)
                except Exception as error:
                    user_error = as_user_error(error, spec.sink.run_id, counter.cause())
                    cluster.release_actors(error)
                    raise user_error from error
        finally:
            counter.close()
        described = nodes.describe(before, counter.nodes or {})
        workers = None
        if counter.nodes is not None:
            workers = {key: sum(one[key] for one in described) for key in ("processes", "peak_memory_bytes")}
        job = nodes.job_id()
        return Execution(sink.written, progress.first_row_at, workers, nodes.totals(), described, job, self.warnings)
