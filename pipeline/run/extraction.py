"""An extraction: list and diff -> extract -> commit -> report."""

from __future__ import annotations

import _thread
import contextlib
import datetime
import glob
import json
import secrets
import threading
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, TextIO

from pipeline import config as configs
from pipeline import engine as engines
from pipeline import sources, storage
from pipeline.config import identity
from pipeline.config.bound import BoundConfig, wanted
from pipeline.config.features import BoundFeature
from pipeline.core import versions
from pipeline.core.errors import BudgetExceeded, TesseraError, describe, one_line
from pipeline.core.schema import CONTRACT
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import FileSet
from pipeline.dataset.commit.lease import Lease
from pipeline.dataset.commit.transaction import Transaction
from pipeline.dataset.diff import index
from pipeline.engine import EngineName
from pipeline.engine.memory import MemoryMeter
from pipeline.engine.progress import quiet
from pipeline.engine.spec import Engine, Execution, PipelineSpec
from pipeline.run import budget, planning
from pipeline.run import report as reporting
from pipeline.run.checks import (
    _check_identities,
    _identities,
    _identities_of_contract_1,
    _revised,
)
from pipeline.run.pipeline import pipeline_spec, wants_gpu
from pipeline.run.planning import Plan
from pipeline.run.preparation import _barred, _retry, _root
from pipeline.stages.reuse import ReuseSource


def plan(prepared: BoundConfig, retry_failures: bool = False) -> Plan:
    """What `extract` would do: how many samples of each class. Opens no media and leaves nothing behind.

    Raises:
        ConfigError: nothing to list, duplicate ids, features that the dataset has with other values.
    """
    config, root = prepared.config, _root(prepared.config)
    base = snapshots.newest(root)
    warnings = _check_identities(prepared, base)
    stored = index.of_snapshot(root, base, _retry(prepared, base, retry_failures)) if base else iter(())
    plan = planning.make(config, stored, _barred(config, base), None)
    plan.warnings.extend(warnings)
    return plan


def planned_spec(bound: BoundConfig) -> PipelineSpec:
    """Returns the pipeline that `extract` would run here, without starting an engine.

    On a cluster, whose GPUs are not known before, it is that of a host with GPUs if a pool asks for them.
    """
    gpus = bound.config.compute.cluster()[0] is not None or any(glob.iglob("/dev/nvidia[0-9]*"))
    return pipeline_spec(bound, None, "plan", _root(bound.config), wants_gpu(bound) and gpus)


def extract(
    prepared: BoundConfig,
    show_progress: bool = True,
    retry_failures: bool = False,
    started: float | None = None,
    engine_name: EngineName = "ray",
) -> dict[str, Any]:
    """Bring the dataset up to date with the corpus and return the report.

    Args:
        retry_failures: also try again what failed for good.
        started: when the command began, in seconds since the epoch; None: now.
        engine_name: what runs the pipeline (`pipeline.engine`).

    Raises:
        BudgetExceeded: more rows failed than the config allows; the dataset is committed all the same.
        ConfigError: see `plan`.
        TesseraError: another run is at it; rows or cells are unaccounted for (a defect); or the engine failed.
    """
    config, root = prepared.config, _root(prepared.config)
    started = time.time() if started is None else started
    engine = engines.build(engine_name, config.compute, prepared.template)
    run_id = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    run_folder = f"_runs/{run_id}"
    with (
        quiet() as terminal,
        Transaction(root, "extract", run_id) as transaction,
        _reported_if_broken(prepared, transaction, started),
        _ended_if_lost(transaction.lease),
    ):
        base, place = transaction.base, transaction.folder
        warnings = _check_identities(prepared, base)
        barred = _barred(config, base)
        roots = sources.build(config.source).allowed_roots().plain()
        fixed = {"forgotten": sorted(barred), "allowed_roots": list(roots)}
        ours, before = _identities(prepared), _identities_of_contract_1(prepared)
        fitting = transaction.resume_interrupted(
            configs.digest({**ours, **fixed}), earlier := configs.digest({**before, **fixed})
        )
        # what a version was begun with is what it is made with: of contract 1, or by an older revision
        stored = (base.identities if base else None) or (before if earlier in fitting else ours)
        if base is None:
            warnings = _revised(prepared.features, stored["features"])
        carry = _carry(prepared) if base is None else ReuseSource(root, base, prepared.features, frozenset(), own=True)
        held = chain(
            index.of_snapshot(root, base, _retry(prepared, base, retry_failures)) if base else (),
            index.of_killed(root, transaction.killed, len(base.files()) if base else 0),
            index.to_carry(carry.root, carry.snapshot) if carry and not carry.own else (),
        )
        plan = planning.make(config, held, barred, place.url(f"{run_folder}/plan"), root)
        plan.warnings.extend(warnings)
        place.publish(f"{run_folder}/config.json", config.model_dump_json(indent=1).encode())
        with MemoryMeter() as memory:
            done = _compute(prepared, plan, carry, run_id, engine, terminal if show_progress else None)
        written = done.written
        report = reporting.build(
            prepared,
            plan,
            written,
            run_id=run_id,
            started=started,
            ended=time.time(),
            startup_seconds=None if done.first_row_at is None else done.first_row_at - started,
            peak_memory_bytes=memory.peak,
            devices=done.devices,
            workers=done.workers,
            versions=versions.installed(),
        )
        exceeded, warnings = budget.check_budget(config.failures, report)
        report["warnings"] += warnings
        added = FileSet.of(written.shards, written.failure_shards, written.empty_shards)
        changed = any(added) or plan.difference.drops or transaction.killed or transaction.discarded
        if changed or base is None or base.contract < CONTRACT:
            following = transaction.next_snapshot(stored, plan.difference.drops, added, barred, roots)
            report["snapshot"] = following.number
            place.publish(f"{run_folder}/report.json", json.dumps(report, indent=1).encode())
            if base is None:
                if set(_barred(config, None)) - set(barred):
                    raise TesseraError("samples were forgotten while this run went on: run again")
                # first: a kill between the two must not leave a version that is committed and never current
                catalog.make_current(config.output.path, str(config.output.version))
            transaction.commit(following)
        else:
            report["snapshot"] = base.number
            place.publish(f"{run_folder}/report.json", json.dumps(report, indent=1).encode())
            transaction.close()
        if (unjudged := budget.unchecked_report(place, base)) is not None:
            exceeded_before, _ = budget.check_budget(config.failures, unjudged)
            budget.mark_checked(place, unjudged["run_id"])
            if exceeded_before is not None and exceeded is None:
                name = unjudged["run_id"]
                exceeded = f"run {name}, which was stopped before its failures were judged: {exceeded_before}"
        budget.mark_checked(place, run_id)
    if exceeded is not None:
        raise BudgetExceeded(exceeded, report)
    return report


@contextlib.contextmanager
def _reported_if_broken(prepared: BoundConfig, transaction: Transaction, started: float) -> Iterator[None]:
    """Around a run: where it breaks off before its commit, its report says why."""
    try:
        yield
    except BaseException as error:
        if transaction.committed:
            raise
        if isinstance(error, Exception):
            cause = one_line(str(error)) if isinstance(error, TesseraError) else describe(error)
        else:  # a signal
            cause = "interrupted"
        report = reporting.of_broken_run(prepared, transaction.run_id, started, time.time(), cause)
        with contextlib.suppress(Exception):  # what broke the run may break this; the first is raised
            path = f"_runs/{transaction.run_id}/report.json"
            transaction.folder.publish(path, json.dumps(report, indent=1).encode())
        raise


@contextlib.contextmanager
def _ended_if_lost(lease: Lease) -> Iterator[None]:
    """A run that slept until another took its lease over ends at once: what it would still write is nobody's.

    Raises:
        TesseraError: that happened.
    """
    if threading.current_thread() is threading.main_thread():
        lease.on_lost = _thread.interrupt_main
    try:
        yield
    except BaseException:  # whatever the program's own handler of SIGINT raises
        if lease.lost:
            lease.check()
        raise
    finally:
        lease.on_lost = lambda: None


def _carry(prepared: BoundConfig) -> ReuseSource | None:
    """The current version, if a new one may take columns of it."""
    output = prepared.config.output
    version = catalog.current(output.path)
    if version is None:
        return None
    root = storage.join(output.path, version)
    old = snapshots.newest(root)
    assert old is not None
    theirs = old.identities.get("features", {})
    features = [one.get("feature") for one in theirs.values()]
    found = [one.get("modality") if isinstance(one, dict) else None for one in features]
    named = {one if isinstance(one, str) else None for one in found}
    read = frozenset(one for one in wanted(prepared.config) if one in named)
    if named - read:
        return None  # it cut its windows by files that are not opened any more
    same = tuple(one for one in prepared.features if one.name in theirs and _same_values(one, theirs[one.name]))
    revised = any(
        identity.revision(theirs[one.name]) != identity.revision(one.identity)
        for one in prepared.features
        if one.timed and one.name in theirs
    )
    return ReuseSource(root, old, same, read, other_times=revised) if same else None


def _same_values(feature: BoundFeature, stored: dict[str, Any]) -> bool:
    """Whether a feature that was made by ``stored`` has the values that this one would have."""
    same_revision = identity.revision(stored) == identity.revision(feature.identity)
    return same_revision and not identity.of_feature(stored, feature.identity, feature.full_identity)


def _compute(
    bound: BoundConfig, plan: Plan, reuse: ReuseSource | None, run_id: str, engine: Engine, terminal: TextIO | None
) -> Execution:
    """Runs the pipeline over what the plan names.

    Raises:
        TesseraError: planned samples, rows and cells are not all accounted for; or the engine failed.
    """
    if not plan.units:
        return Execution()
    if reuse is not None and reuse.own and not plan.difference.counts.retried:
        reuse = None  # the list of a large dataset's shards is not sent for nothing
    on_gpu = wants_gpu(bound) and engine.gpus() > 0
    spec = pipeline_spec(bound, reuse, run_id, _root(bound.config), on_gpu)
    done = engine.execute(spec, plan.units, plan.samples, terminal)
    problems = done.written.problems()
    if done.written.samples != plan.samples:
        problems.append(f"{plan.samples} samples planned, {done.written.samples} arrived")
    if problems:
        raise TesseraError(f"the books of run {run_id} do not balance: {'; '.join(problems)}")
    return done
