"""What `extraction.extract` would do, without doing it: ``tessera extract CONFIG --plan``."""

from __future__ import annotations

from pipeline.config.bound import BoundConfig
from pipeline.core.system.devices import visible_gpus
from pipeline.dataset.commit import snapshots
from pipeline.dataset.diff import index
from pipeline.engine.local_layout import Machine, layout
from pipeline.engine.spec import PipelineSpec
from pipeline.run import planning
from pipeline.run._reuse import needed, source_of
from pipeline.run.checks import check_identities
from pipeline.run.pipeline import pipeline_spec, wants_gpu
from pipeline.run.planning import Plan
from pipeline.run.preparation import forgotten_ids, retry_policy, version_root


def plan(bound: BoundConfig, retry_failures: bool = False) -> Plan:
    """Returns what `extract` would do: how many samples of each class. Opens no media and writes nothing.

    Raises:
        ConfigError: nothing to list, duplicate ids, or features that the dataset has with other values.
    """
    config, root = bound.config, version_root(bound.config)
    base = snapshots.newest(root)
    warnings = check_identities(bound, base)
    stored = index.of_snapshot(root, base, retry_policy(bound, base, retry_failures)) if base else iter(())
    plan = planning.make(config, stored, forgotten_ids(config, base), None)
    plan.warnings.extend(warnings)
    return plan


def planned_spec(bound: BoundConfig, plan: Plan) -> PipelineSpec:
    """Returns the pipeline that `extract` would run here, without starting an engine.

    The GPUs of a cluster are not known before a run, so its spec is that of a host with GPUs if a pool asks for them.
    """
    on_cluster = bound.engine == "ray" and bound.config.compute.cluster()[0] is not None
    gpus = on_cluster or (bound.engine != "inline" and bool(visible_gpus()))
    root = version_root(bound.config)
    reuse = needed(source_of(bound, snapshots.newest(root)), plan)
    return pipeline_spec(bound, reuse, "plan", root, wants_gpu(bound.config) and gpus)


def planned_machine(bound: BoundConfig, spec: PipelineSpec) -> dict[str, int] | None:
    """Returns what the run would use of this machine, and its workers there. None: the engine is not ``local``.

    Raises:
        ConfigError: a pool asks for more than there is.
    """
    if bound.engine != "local":
        return None
    machine = Machine.here(bound.config.compute)
    gpus = len(machine.gpus) if spec.shares_gpus else 0
    workers = layout(spec, machine).workers
    return {"cpus": machine.cpus, "gpus": gpus, "memory_bytes": machine.memory_bytes, "workers": workers}
