"""The engine on Ray Data, for clusters and pools of GPU actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from pipeline.config.models import ComputeConfig
from pipeline.engine.errors import as_user_error
from pipeline.engine.progress import Progress
from pipeline.engine.ray import cluster, graph, preflight
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

    def check(self) -> None:
        cluster.check(self.compute)

    def gpus(self, terminal: TextIO | None) -> float:
        self._join(terminal)
        return sum(node.gpus for node in cluster.nodes())

    def _join(self, terminal: TextIO | None) -> None:
        cluster.start(self.compute)
        cluster.wait_for_nodes(self.compute, terminal)

    def execute(self, spec: PipelineSpec, work: Sequence[Unit], samples: int, terminal: TextIO | None) -> Execution:
        self._join(terminal)
        if spec.node_check is not None:
            preflight.check_nodes(spec.node_check, work[0])
        task_cpus = max((one.num_cpus or 0.0 for one in spec.workers.values() if one.kind == "tasks"), default=0.0)
        pools = {step.name: step.workers for step in spec.steps if step.workers.kind == "pool"}
        found = sizes(pools, cluster.nodes(), spec.shares_gpus, task_cpus, len(work))
        sink = ShardSink(spec.sink.open_writer, spec.sink.run_id, spec.sink.min_rows)
        counter = RunCounter()
        progress = Progress(samples, terminal, counter.read)
        try:
            with progress, cluster.capacity_watchdog(found, task_cpus, progress):
                try:
                    graph.execute(spec, work, found, counter.actor, sink)
                except Exception as error:
                    user_error = as_user_error(error, spec.sink.run_id, counter.cause())
                    cluster.release_actors(error)
                    raise user_error from error
        finally:
            counter.close()
        return Execution(sink.written, progress.first_row_at, counter.workers, cluster.devices())
