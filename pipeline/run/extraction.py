"""One extraction: open and compare, compute, report, check the failure budget, commit.

After the commit the budget of the last run is checked, if that run was stopped before its own check was recorded. Only
then is an exceeded budget raised, so what was written is committed in any case.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TextIO

from pipeline import config as configs
from pipeline import engine as engines
from pipeline import sources
from pipeline.config.bound import BoundConfig
from pipeline.config.models import PipelineConfig
from pipeline.core import versions
from pipeline.core.errors import BudgetExceeded, TesseraError
from pipeline.core.schema import CONTRACT
from pipeline.dataset.commit import catalog
from pipeline.dataset.commit.data_files import FileSet, new_run_id
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff import index
from pipeline.dataset.shards.write_result import Written
from pipeline.engine.memory import MemoryMeter
from pipeline.engine.progress import quiet
from pipeline.engine.spec import Engine, Execution
from pipeline.run import budget, planning
from pipeline.run import report as reporting
from pipeline.run._guards import interrupt_if_lease_lost, lineage_events, report_if_broken
from pipeline.run._reuse import needed, source_of
from pipeline.run.checks import check_identities, identities, identities_of_contract_1, revision_warnings
from pipeline.run.pipeline import pipeline_spec, wants_gpu
from pipeline.run.planning import Plan
from pipeline.run.preparation import forgotten_ids, retry_policy, version_root
from pipeline.stages.reuse import ReuseSource
from pipeline.storage import settings as storage_settings
from pipeline.telemetry.prometheus import exporting


def extract(
    bound: BoundConfig,
    show_progress: bool = True,
    retry_failures: bool = False,
    started: float | None = None,
    until: float | None = None,
    check_plan: Callable[[Plan], None] = lambda plan: None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Brings the dataset up to date with the corpus and returns the report.

    Args:
        retry_failures: also try again what failed for good.
        started: when the command began, in seconds since the epoch. None: now.
        until: no sample is begun after this time, in seconds since the epoch. What is finished is committed, the
            report is ``partial``, and the next run continues. None: all samples are extracted.
        check_plan: called before anything is computed. Whatever it raises ends the run.
        run_id: id of the run. None: a new one.

    Raises:
        BudgetExceeded: more rows failed than the config allows. The dataset is committed all the same.
        ConfigError: see `pipeline.run.preview.plan`.
        TesseraError: another run holds the dataset; rows or cells are unaccounted for (a defect); or the engine failed.
    """
    config, root = bound.config, version_root(bound.config)
    storage_settings.use(config.storage)
    started = time.time() if started is None else started
    engine = engines.build(bound.engine, config.compute, bound.fork_server)
    run_id = run_id or new_run_id()
    with (
        exporting(config.metrics, config.output.path),
        quiet() as terminal,
        lineage_events(bound, run_id, started) as finished,
    ):
        with (
            Transaction(root, "extract", run_id) as transaction,
            report_if_broken(bound, transaction, started) as known,
            interrupt_if_lease_lost(transaction.lease),
        ):
            opened = _open(bound, transaction, retry_failures)
            known["samples_planned"] = opened.plan.samples
            check_plan(opened.plan)
            with MemoryMeter() as memory:
                shown = terminal if show_progress else None
                done = _compute(bound, opened.plan, opened.reuse, run_id, engine, shown, until)
            report = _report(bound, opened.plan, done, run_id, started, memory.peak)
            exceeded, warnings = budget.check_budget(config.failures, report)
            report["warnings"] += warnings
            _commit(config, transaction, opened, done.written, report)
            exceeded_before = _check_budget_of_last_run(config, transaction, opened.base)
            budget.mark_checked(transaction.folder, run_id)
            if report["snapshot"] is None:  # its rows are judged with those of the run that commits them
                exceeded = None
        finished(report)
        exceeded = exceeded_before if exceeded is None else exceeded
        if exceeded is not None:
            raise BudgetExceeded(exceeded, report)
    return report


@dataclass(frozen=True)
class _Opened:
    """What a run found under its lease, and what it is to do.

    Args:
        base: the version's newest snapshot. None: this is its first run.
        identities: what decides the values of every column, for the next snapshot.
        forgotten: sha256 of the ids that must not come back.
        allowed_roots: the source's settings for allowed files, as strings.
        reuse: where columns are taken from. None: everything is computed.
    """

    base: Snapshot | None
    identities: dict[str, Any]
    forgotten: tuple[str, ...]
    allowed_roots: tuple[str, ...]
    reuse: ReuseSource | None
    plan: Plan


def _open(bound: BoundConfig, transaction: Transaction, retry_failures: bool) -> _Opened:
    """Compares config, corpus and dataset, resumes interrupted runs, and writes the plan and the resolved config."""
    config, root, base = bound.config, transaction.root, transaction.base
    warnings = check_identities(bound, base)
    forgotten = forgotten_ids(config, base)
    roots = sources.build(config.source).allowed_roots().plain()
    fixed = {"forgotten": sorted(forgotten), "allowed_roots": list(roots)}
    ours, in_contract_1 = identities(bound), identities_of_contract_1(bound)
    digest_of_contract_1 = configs.digest({**in_contract_1, **fixed})
    fitting = transaction.resume_interrupted(configs.digest({**ours, **fixed}), digest_of_contract_1)
    # a version keeps the identities that it was begun with: of contract 1, or of an older revision
    stored = (base.identities if base else None) or (in_contract_1 if digest_of_contract_1 in fitting else ours)
    if base is None:
        warnings = revision_warnings(bound.features, stored["features"])
    reuse = source_of(bound, base)
    state = chain(
        index.of_snapshot(root, base, retry_policy(bound, base, retry_failures)) if base else (),
        index.of_killed(root, transaction.killed, len(base.files()) if base else 0),
        index.to_carry(reuse.root, reuse.snapshot) if reuse and not reuse.own else (),
    )
    run_folder = f"_runs/{transaction.run_id}"
    plan = planning.make(config, state, forgotten, transaction.folder.url(f"{run_folder}/plan"), root)
    plan.warnings.extend(warnings)
    transaction.folder.publish(f"{run_folder}/config.json", config.model_dump_json(indent=1).encode())
    return _Opened(base, stored, forgotten, roots, reuse, plan)


def _compute(
    bound: BoundConfig,
    plan: Plan,
    reuse: ReuseSource | None,
    run_id: str,
    engine: Engine,
    terminal: TextIO | None,
    until: float | None,
) -> Execution:
    """Runs the pipeline over the units of the plan. Those that were not begun in time are taken out of the plan.

    Raises:
        TesseraError: planned samples, rows and cells are not all accounted for; or the engine failed.
    """
    if not plan.units or (until is not None and time.time() >= until):
        planning.leave_unfinished(plan, {}, frozenset())
        return Execution()
    on_gpu = wants_gpu(bound.config) and engine.gpus(terminal) > 0
    if not on_gpu and any(pool.num_gpus for pool in bound.config.compute.pools.values()):
        plan.warnings.append("compute.pools ask for GPUs, and there are none: encoders ran on CPUs")
    spec = pipeline_spec(bound, needed(reuse, plan), run_id, version_root(bound.config), on_gpu)
    done = engine.execute(replace(spec, until=until), plan.units, plan.samples, terminal)
    plan.warnings.extend(done.warnings)
    problems = done.written.problems()
    if until is not None and time.time() >= until:
        problems += planning.leave_unfinished(plan, done.written.samples_by_unit, done.begun)
    if done.written.samples != plan.samples:
        problems.append(f"{plan.samples} samples planned, {done.written.samples} arrived")
    if problems:
        raise TesseraError(f"the books of run {run_id} do not balance: {'; '.join(problems)}")
    return done


def _report(
    bound: BoundConfig, plan: Plan, done: Execution, run_id: str, started: float, peak_memory_bytes: int
) -> dict[str, Any]:
    return reporting.build(
        bound,
        plan,
        done,
        run_id=run_id,
        started=started,
        ended=time.time(),
        peak_memory_bytes=peak_memory_bytes,
        versions=versions.installed(),
    )


def _commit(
    config: PipelineConfig, transaction: Transaction, opened: _Opened, written: Written, report: dict[str, Any]
) -> None:
    """Publishes the report and commits the next snapshot, or closes the transaction if nothing has changed.

    The first run of a further version is not committed before it is complete: it would become the current version. What
    it has written is kept like that of an interrupted run.

    Raises:
        TesseraError: during the first run of a version, samples were forgotten in another one.
    """
    base, drops = opened.base, opened.plan.difference.drops
    path = f"_runs/{transaction.run_id}/report.json"
    added = FileSet.of(written.shards, written.failure_shards, written.empty_shards)
    if base is None and opened.plan.samples_left and catalog.current(config.output.path) is not None:
        report["snapshot"] = None
        transaction.folder.publish(path, json.dumps(report, indent=1).encode())
        return
    changed = any(added) or drops or transaction.killed or transaction.discarded
    if base is not None and base.contract >= CONTRACT and not changed:
        report["snapshot"] = base.number
        transaction.folder.publish(path, json.dumps(report, indent=1).encode())
        transaction.close()
        return
    snapshot = transaction.next_snapshot(opened.identities, drops, added, opened.forgotten, opened.allowed_roots)
    report["snapshot"] = snapshot.number
    transaction.folder.publish(path, json.dumps(report, indent=1).encode())
    if base is None:
        if set(forgotten_ids(config, None)) - set(opened.forgotten):
            raise TesseraError("samples were forgotten while this run went on: run again")
        # before the commit: a kill between the two must not leave a committed version that never becomes current
        catalog.make_current(config.output.path, str(config.output.version))
    transaction.commit(snapshot)


def _check_budget_of_last_run(config: PipelineConfig, transaction: Transaction, base: Snapshot | None) -> str | None:
    """Returns why the last committed run exceeded the budget, if it was stopped before that was checked."""
    report = budget.unchecked_report(transaction.folder, base)
    if report is None:
        return None
    exceeded, _ = budget.check_budget(config.failures, report)
    run_id = report["run_id"]
    budget.mark_checked(transaction.folder, run_id)
    return exceeded and f"run {run_id}, which was stopped before its failures were judged: {exceeded}"
