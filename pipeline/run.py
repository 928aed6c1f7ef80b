"""An extraction: list and diff -> extract -> commit -> report. Builds the Ray Data graph and runs it.

    [probe, cut] tasks -> [fetch, decode, tokenize] tasks -> [encode] actors, one pool a name -> [write] tasks

On a host without GPUs decoding fuses into the first pool's actors, one a core; beside a GPU it never
does. Scheduling, streaming, backpressure and retries are Ray Data's.
"""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import datetime
import gc
import json
import logging
import os
import platform
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any, TextIO

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline import config as configs
from pipeline import features as binding
from pipeline import malloc, snapshots, sources, state, storage
from pipeline import plan as planning
from pipeline import report as reporting
from pipeline.config import PipelineConfig
from pipeline.difference import EMPTY, FAILURE, ROW
from pipeline.errors import BudgetExceeded, ConfigError, DeviceFailed, TesseraError, describe, one_line
from pipeline.features import Feature
from pipeline.isolation import Isolated
from pipeline.lease import Lease
from pipeline.media import Modality
from pipeline.plan import Plan, Prepared, wanted
from pipeline.pools import TASK_CPUS, Actors, Node, sizes, without_room
from pipeline.progress import MemoryMeter, Progress, quiet
from pipeline.schema import CONTRACT, FIXED
from pipeline.sinks.ray_sink import ShardSink
from pipeline.sinks.shards import ShardWriter, Written, footer
from pipeline.snapshots import File, Snapshot
from pipeline.stages.carry import CarryStage
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage, ReadPlanStage
from pipeline.stages.rows import ROWS
from pipeline.state import Retry
from pipeline.trail import Trail
from pipeline.transaction import Transaction

_ANSWER_S = 10.0
_LOOK_S, _ROOM_S = 5.0, 300.0
_ADVICE_OF_RAY = " Failed to apply UDF transform after "  # added to the words of any error, of ours too
_PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "pyarrow",
    "av",
    "decord",
    "soundfile",
    "pillow",
)


def prepare(config: PipelineConfig, new_version: bool = False) -> Prepared:
    """Check everything that can be checked without computing.

    Args:
        new_version: extract into a version of its own: ``output.version`` where that is given, else the next ``v<n>``.

    Raises:
        ConfigError: any mistake; or a version that there is already.
    """
    config = configs.here(config)
    _check_cluster(config)
    _check_output(config)
    version = _version(config, new_version)
    config = config.model_copy(update={"output": config.output.model_copy(update={"version": version})})
    features = binding.bind(config)
    _check_passthrough(config, features)
    storage.check_writable(_root(config), "output.path")
    return Prepared(config, features)


def _version(config: PipelineConfig, new: bool) -> str:
    path, named = config.output.path, config.output.version
    if not new:
        return named or snapshots.current(path) or "v1"
    if named is not None and named in snapshots.versions(path):
        raise ConfigError("output.version", f"there is a version {named!r} already", "another name, or none")
    return named or snapshots.next_version(path)


def preview(prepared: Prepared, retry_failures: bool = False) -> Plan:
    """What `extract` would do: how many samples of each class. Opens no media and leaves nothing behind.

    Raises:
        ConfigError: nothing to list, duplicate ids, features that the dataset has with other values.
    """
    config, root = prepared.config, _root(prepared.config)
    base = snapshots.newest(root)
    _check_identities(prepared, base)
    stored = state.of_snapshot(root, base, _retry(config, retry_failures)) if base else iter(())
    return planning.make(config, stored, _barred(config, base), None)


def extract(prepared: Prepared, show_progress: bool = True, retry_failures: bool = False) -> dict[str, Any]:
    """Bring the dataset up to date with the corpus and return the report.

    Args:
        retry_failures: also try again what failed for good.

    Raises:
        BudgetExceeded: more rows failed than the config allows; the dataset is committed all the same.
        ConfigError: see `preview`.
        TesseraError: another run is at it; rows or cells are unaccounted for (a defect); or the engine failed.
    """
    config, started, root = prepared.config, time.time(), _root(prepared.config)
    run_id = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    folder = storage.join(root, "_runs", run_id)
    with quiet() as terminal, Transaction(root, "extract", run_id) as transaction, _ended_if_lost(transaction.lease):
        base = transaction.base
        _check_identities(prepared, base)
        barred = _barred(config, base)
        transaction.adopt(configs.digest({**_identities(prepared), "forgotten": sorted(barred)}))
        carry = _carry(prepared) if base is None else None
        held = chain(
            state.of_snapshot(root, base, _retry(config, retry_failures)) if base else (),
            state.of_killed(root, transaction.killed, len(base.files()) if base else 0),
            state.to_carry(carry.root, carry.snapshot) if carry else (),
        )
        plan = planning.make(config, held, barred, storage.join(folder, "plan"))
        storage.publish(storage.join(folder, "config.json"), config.model_dump_json(indent=1).encode())
        with MemoryMeter() as memory:
            written, first_row_s = _compute(prepared, plan, carry, run_id, terminal if show_progress else None)
        report = reporting.build(
            prepared,
            plan,
            written,
            run_id=run_id,
            seconds=time.time() - started,
            startup_seconds=first_row_s,
            peak_memory_bytes=memory.peak,
            versions=versions(),
        )
        added = {
            kind: [File.of(one) for one in files]
            for kind, files in (
                (ROW, written.shards),
                (FAILURE, written.failure_shards),
                (EMPTY, written.empty_shards),
            )
        }
        changed = any(added.values()) or plan.difference.drops or transaction.killed or transaction.discarded
        if changed or base is None:
            following = transaction.next_snapshot(_identities(prepared), plan.difference.drops, added, barred)
            report["snapshot"] = following.number
            storage.publish(storage.join(folder, "report.json"), json.dumps(report, indent=1).encode())
            if base is None:
                if set(_barred(config, None)) - set(barred):
                    raise TesseraError("samples were forgotten while this run went on: run again")
                # first: a kill between the two must not leave a version that is committed and never current
                snapshots.make_current(config.output.path, str(config.output.version))
            transaction.commit(following)
        else:
            report["snapshot"] = base.number
            storage.publish(storage.join(folder, "report.json"), json.dumps(report, indent=1).encode())
            transaction.close()
    _judge(config, report)
    return report


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


@dataclass(frozen=True)
class _Carry:
    """Another version, and the features that it has with the same values."""

    root: str
    snapshot: Snapshot
    features: tuple[Feature, ...]
    read: frozenset[Modality]
    """What that version read: its windows are cut by it."""


def _carry(prepared: Prepared) -> _Carry | None:
    """The current version, if a new one may take columns of it."""
    output = prepared.config.output
    version = snapshots.current(output.path)
    if version is None:
        return None
    root = storage.join(output.path, version)
    old = snapshots.newest(root)
    assert old is not None
    theirs = old.identities.get("features", {})
    read = frozenset(one["feature"]["modality"] for one in theirs.values())
    if not read <= wanted(prepared.config):
        return None  # it cut its windows by files that are not opened any more
    same = tuple(f for f in prepared.features if theirs.get(f.name) == json.loads(json.dumps(f.identity)))
    return _Carry(root, old, same, read) if same else None


def _compute(
    prepared: Prepared, plan: Plan, carry: _Carry | None, run_id: str, terminal: TextIO | None
) -> tuple[Written, float | None]:
    """Decode, encode and write what the plan names; the books balance, or it raises."""
    if not plan.units:
        return Written(), None
    _start_ray(prepared.config)
    pools, on_gpu = _pools(prepared, len(plan.units))
    sink = _sink(prepared, run_id, _root(prepared.config))
    with Progress(plan.samples, terminal) as progress, _ended_without_room(pools, on_gpu, progress):
        try:
            _graph(prepared, plan, carry, progress, pools, on_gpu).write_datasink(
                sink, ray_remote_args={"num_cpus": TASK_CPUS}, concurrency=_tasks_at_once()
            )
        except Exception as error:
            told = _told(error, run_id, progress.cause())
            _let_go(error)
            raise told from error
    problems = sink.written.problems()
    if sink.written.samples != plan.samples:
        problems.append(f"{plan.samples} samples planned, {sink.written.samples} arrived")
    if problems:
        raise TesseraError(f"the books of run {run_id} do not balance: {'; '.join(problems)}")
    return sink.written, progress.first_row_s


def _let_go(error: BaseException | None) -> None:
    """Ends Ray's actors of a run that broke off: the tracebacks of its errors hold them, and their CPUs."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            todo += [one.__cause__, one.__context__, getattr(one, "cause", None)]
    gc.collect()


def _root(config: PipelineConfig) -> str:
    assert config.output.version is not None
    return storage.join(config.output.path, config.output.version)


def _barred(config: PipelineConfig, base: Snapshot | None) -> tuple[str, ...]:
    """sha256 of the ids that must not come back. A version's first run takes over what the others bar."""
    return base.forgotten if base else snapshots.forgotten(config.output.path)


def _retry(config: PipelineConfig, everything: bool) -> Retry:
    return Retry(all=everything, max_attempts=config.failures.max_attempts)


def _identities(prepared: Prepared) -> dict[str, Any]:
    """What decides the values of every column."""
    passthrough = sources.build(prepared.config.source).passthrough()
    return {
        "features": {feature.name: feature.identity for feature in prepared.features},
        "passthrough": {field.name: str(field.type) for field in passthrough},
    }


def _check_identities(prepared: Prepared, base: Snapshot | None) -> None:
    """Raises ``ConfigError`` if the dataset's features have other values than the config's."""
    if base is None or not base.identities:
        return
    found = [
        f"{section}.{name} {how}"
        for section, ours in _identities(prepared).items()
        for name, how in _differences(base.identities.get(section, {}), json.loads(json.dumps(ours)))
    ]
    if found:
        version, more = prepared.config.output.version, f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ConfigError(
            "config",
            f"it is not what version {version!r} of the dataset was made with: {found[0]}{more}",
            "keep the config as it was, or extract beside it with --new-version",
        )


def _differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(path of names, what it is there and here) of every value that differs."""
    for name in dict.fromkeys([*there, *here]):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from ((f"{name}.{below}", how) for below, how in _differences(old, new))
        elif name not in there or name not in here:
            yield name, "is not in the config" if name in there else "is not in the dataset"
        elif old != new:
            yield name, f"is {old!r} there, {new!r} here"


def versions() -> dict[str, str]:
    """Versions of what computes the values; recorded, no part of a fingerprint."""
    found = {"python": platform.python_version()}
    for name in ("tessera", *_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


# -- the graph -----------------------------------------------------------------------------------


class _Stage:
    """Stages as Ray calls them: set up once a process; the last pool's rows are counted for the progress display."""

    def __init__(self, stages: tuple[Any, ...], progress: Any, last: bool = False) -> None:
        malloc.keep_pages()
        self.stages, self.progress, self.last = stages, progress, last
        self.trail = Trail(progress) if any(isinstance(stage, EncodeStage) for stage in stages) else None
        self.broken: Exception | None = None
        try:
            if self.trail is not None:
                self.trail.set_up()
            _set_up(stages)
        except Exception as error:  # told at the first call: of an actor that does not start Ray tells no cause
            self.broken = error
        if self.trail is not None:
            self.trail.rest()

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            if self.broken is not None:
                raise self.broken
            alone = self.trail if self.trail is not None and self.trail.begin(table) else None
            for stage in self.stages:
                if isinstance(stage, EncodeStage):
                    stage.alone = alone
                table = stage(table)
        except Exception as error:
            if isinstance(error, DeviceFailed) and self.trail is not None and self.trail.device_failed(error.words):
                os._exit(1)
            cause = error if isinstance(error, TesseraError) else TesseraError(describe(error))
            ray.wait([self.progress.broke.remote(cause)], timeout=_ANSWER_S)
            raise
        if self.last:
            self.progress.add.remote(*Progress.count(table))
        return table


def _set_up(stages: tuple[Any, ...]) -> None:
    """An isolated stage waits for its process; the others import and load meanwhile. Raises what a ``setup`` raises.

    That process ends with the thread that started it, so it is this one that starts it.
    """
    with ThreadPoolExecutor(1) as beside:
        others = [beside.submit(stage.setup) for stage in stages if not isinstance(stage, Isolated)]
        for stage in stages:
            if isinstance(stage, Isolated):
                stage.setup()
        for other in others:
            other.result()


_READY: dict[bytes, _Stage] = {}


class _Task:
    """Stages as a plain function for Ray tasks; a worker process keeps them set up between tasks."""

    def __init__(self, stages: tuple[Any, ...], progress: Any) -> None:
        self.stages, self.progress, self.key = stages, progress, secrets.token_bytes(8)
        self.__name__ = getattr(stages[-1], "name", type(stages[-1]).__name__)

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.key not in _READY:
            _READY[self.key] = _Stage(self.stages, self.progress)
        return _READY[self.key](table)


def _pools(prepared: Prepared, blocks: int) -> tuple[dict[str, Actors], bool]:
    """The pools of the features, and whether decoding stands apart from them, as it does beside a GPU.

    Raises:
        ConfigError: see `pools.sizes`.
    """
    features, compute = prepared.features, prepared.config.compute
    nodes = _nodes()
    pools = {feature.config.pool: compute.pools[feature.config.pool] for feature in features}
    asked = any(pool.num_gpus for pool in pools.values()) or any(
        getattr(feature.config.encoder, "device", "cpu") != "cpu" for feature in features
    )
    on_gpu = asked and any(node.gpus for node in nodes)
    return sizes(pools, nodes, on_gpu, blocks), on_gpu


def _nodes() -> list[Node]:
    return [
        Node(float(node["Resources"]["CPU"]), float(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"] and "CPU" in node["Resources"]
    ]


@contextlib.contextmanager
def _ended_without_room(pools: dict[str, Actors], on_gpu: bool, progress: Progress) -> Iterator[None]:
    """A pool that found no room for an actor any more would be waited for, for ever.

    Raises:
        TesseraError: for ``_ROOM_S`` nothing advanced, and the nodes had no room for one actor of each pool.
    """
    lost: list[str] = []
    over = threading.Event()

    def watch() -> None:
        since: float | None = None
        before = 0
        while not over.wait(_LOOK_S):
            with contextlib.suppress(Exception):  # a cluster that does not answer is told by what is waited for
                name, rows = without_room(pools, _nodes(), on_gpu), progress.rows
                since = (since or time.monotonic()) if name and rows == before else None
                before = rows
                if name and since and time.monotonic() - since > _ROOM_S:
                    lost.append(name)
                    _thread.interrupt_main()
                    return

    watching = threading.Thread(target=watch, daemon=True, name="tessera-room")
    if threading.current_thread() is threading.main_thread():
        watching.start()
    try:
        yield
    except BaseException:
        if lost:
            one = pools[lost[0]]
            raise TesseraError(
                f"compute.pools.{lost[0]}: the nodes that are left have no room for an actor of {one.num_cpus:g} CPUs "
                f"and {one.num_gpus:g} GPUs beside the other pools: bring one back, then run again to continue"
            ) from None
        raise
    finally:
        over.set()


def _graph(
    prepared: Prepared, plan: Plan, carry: _Carry | None, progress: Progress, pools: dict[str, Actors], on_gpu: bool
) -> Any:
    config, features = prepared.config, prepared.features
    dataset = ray.data.from_blocks([planning.unit_table(unit) for unit in plan.units])
    probe = _isolated(ProbeStage(config, features, carry.read if carry else None))
    dataset = _map(dataset, _Task((ReadPlanStage(), probe), progress.actor), TASK_CPUS, at_once=_tasks_at_once())
    dataset = _of_rows(dataset, config.compute.block_rows)
    carried = frozenset(feature.name for feature in carry.features) if carry else frozenset()
    decode: tuple[Any, ...] = (_isolated(DecodeStage(config, features, carried)),)
    if on_gpu:
        # with arguments from a function Ray never fuses it into a pool that asks for as much
        dataset = _map(dataset, _Task(decode, progress.actor), num_cpus=1, ray_remote_args_fn=dict)
        decode = ()
    for number, (name, actors) in enumerate(pools.items()):
        hosted = tuple(feature for feature in features if feature.config.pool == name)
        stages = (*decode, EncodeStage(config, hosted, threads=max(1, int(actors.num_cpus))))
        decode, last = (), number == len(pools) - 1
        if carry and last:
            stages = (*stages, CarryStage(carry.root, carry.snapshot.shards, carry.features))
        dataset = dataset.map_batches(
            _Stage,
            fn_constructor_args=(stages, progress.actor, last),
            batch_size=config.compute.block_rows if actors.num_gpus else None,  # Ray insists on a number beside a GPU
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=actors.least, max_size=actors.most, max_tasks_in_flight_per_actor=2),
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus or None,
        )
    return dataset


def _isolated(stage: ProbeStage | DecodeStage) -> Any:
    limits = stage.config.decoders.limits
    return Isolated(stage, limits) if limits.isolate else stage


def _of_rows(dataset: Any, rows: int) -> Any:
    """In blocks of at most ``rows``, cut by the task that makes them.

    Ray's own step for it asks for a whole CPU, waits for ever where actors leave less, and has no option for it; asking
    for what the step before it asks for, it becomes a part of that.
    """
    dataset = dataset.repartition(target_num_rows_per_block=rows)
    plan = dataset._logical_plan
    before = plan.dag.input_dependencies[0]
    plan._dag = dataclasses.replace(plan.dag, ray_remote_args=before.ray_remote_args, compute=before.compute)
    return dataset


def _tasks_at_once() -> int:
    """Of the small kinds, a kind: what they ask for would let a node start dozens."""
    return max(2, int(ray.cluster_resources().get("CPU", 1) / 2))


def _map(dataset: Any, task: _Task, num_cpus: float, at_once: int | None = None, **options: Any) -> Any:
    return dataset.map_batches(
        task,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=num_cpus,
        compute=TaskPoolStrategy(at_once),
        **options,
    )


def _sink(prepared: Prepared, run_id: str, root: str) -> ShardSink:
    config, features = prepared.config, prepared.features
    passthrough = sources.build(config.source).passthrough()
    schema = pa.schema([*FIXED, *passthrough, *(field for feature in features for field in feature.fields())])
    lineage = {
        "contract": CONTRACT,
        "run_id": run_id,
        "window": config.window.model_dump(mode="json"),
        "features": {feature.name: feature.lineage() for feature in features},
        "versions": versions(),
    }
    columns = {feature.name: [field.name for field in feature.fields()] for feature in features}
    stored, output = footer(schema, lineage), config.output

    def open_writer(name: str) -> ShardWriter:
        return ShardWriter(root, name, run_id, columns, stored, output)

    return ShardSink(open_writer, run_id, min_rows=16 * config.compute.block_rows)


# -- around it -----------------------------------------------------------------------------------


def _start_ray(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` for a cluster that does not answer."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address, where = _address(config)
        cores = config.compute.num_cpus or max(2, os.cpu_count() or 1)
        # "local": without it Ray joins a cluster that `ray start` left on this machine
        local = {"address": "local", "num_cpus": cores, "include_dashboard": False}
        options = {"address": address} if address else local
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            if address is None:
                raise
            raise _no_answer(address, where, error) from error
        if threading.current_thread() is threading.main_thread():  # Ray's own handler exits with the signal's number
            signal.signal(signal.SIGTERM, on_term)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # one block may hold many rows that hang, each for its whole time, or take a slow model half an hour
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _address(config: PipelineConfig) -> tuple[str | None, str]:
    """Of the cluster, None for a local one; and who named it."""
    named = config.compute.address
    return (named, "compute.address") if named else (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS")


def _check_cluster(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` if nothing listens there: Ray itself would wait for minutes, silently."""
    address, where = _address(config)
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if found is not None and not ray.is_initialized():
        try:
            socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()
        except OSError as error:
            raise _no_answer(str(address), where, error) from error


def _no_answer(address: str, where: str, error: Exception) -> ConfigError:
    return ConfigError(
        where, f"no Ray cluster answers at {address!r} ({describe(error)})", "start one there, or leave it out"
    )


def _check_output(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` for a place that cannot be reached, or that workers or the next listing would mistake."""
    path = config.output.path
    try:
        storage.list_folders(path)
    except Exception as error:  # any backend may raise anything here
        raise ConfigError("output.path", f"cannot reach {path!r} ({describe(error)})", "give a folder") from error
    if storage.in_one_process(path):
        raise ConfigError("output.path", f"{path!r} lies in one process's memory", "give a folder")
    if storage.is_local(path) and os.path.isfile(storage.split(path)[1]):
        raise ConfigError("output.path", f"{path!r} is a file", "give a folder")
    source = sources.build(config.source)
    source.check("source")
    if source.lists(storage.join(path, config.output.version or "v1", "data", "shard.parquet")):
        raise ConfigError(
            "output.path",
            f"{path!r} lies inside the corpus, where the next listing would find its shards",
            "a folder outside of it, or one that source.exclude names",
        )


def _check_passthrough(config: PipelineConfig, features: tuple[Feature, ...]) -> None:
    """The corpus's own columns must not take the name of one of ours, stored or on the way."""
    source = sources.build(config.source)
    source.check("source")
    if config.source.kind == "files" and storage.in_one_process(config.source.path):
        raise ConfigError(
            "source.path", f"{config.source.path!r} lies in one process's memory", "what workers can read"
        )
    ours = {*FIXED.names, *ROWS.names, *(field.name for feature in features for field in feature.fields())}
    for name in source.passthrough().names:
        if name in ours:
            raise ConfigError(
                "source.passthrough", f"column {name!r} is the dataset's own", "rename it in the manifest"
            )
        if "/" in name:
            raise ConfigError("source.passthrough", f"column {name!r}", "a name without /: rename it in the manifest")


def _judge(config: PipelineConfig, report: dict[str, Any]) -> None:
    """Raises ``BudgetExceeded`` past the failure budget."""
    adopted = report["samples_by_class"]
    failed = report["rows_with_failures"] + adopted["rows_adopted_with_failures"]
    rows = report["rows_planned"] + adopted["rows_adopted"]
    budget = config.failures
    over = budget.max_rows is not None and failed > budget.max_rows
    if rows >= budget.min_rows and rows and failed / rows > budget.max_fraction:
        over = True
    if over:
        kinds = [f"{count} {kind}" for kind, count in report["failures_by_kind"].items()]
        if before := adopted["rows_adopted_with_failures"]:
            kinds.append(f"{before} in the run that was killed")
        raise BudgetExceeded(
            f"{failed} of {rows} rows failed ({failed / max(1, rows):.1%}; {', '.join(kinds)}), over the budget of "
            f"max_fraction {budget.max_fraction:.1%}"
            + (f", max_rows {budget.max_rows}" if budget.max_rows is not None else "")
            + "; what was written is committed and valid",
            report,
        )


def _told(error: Exception, run_id: str, told: TesseraError | None) -> TesseraError:
    """A config error found in a worker, or why the run broke off: as a worker told, or the cause that Ray wraps."""
    if isinstance(told, ConfigError):
        return told
    causes: list[BaseException] = [error]
    while isinstance(inner := getattr(causes[-1], "cause", None) or causes[-1].__cause__, BaseException):
        causes.append(inner)
    own = [one for one in causes if not type(one).__module__.startswith("ray.")] or causes
    words = one_line(str(own[-1])) if isinstance(own[-1], TesseraError) else describe(own[-1])
    return TesseraError(f"the run {run_id} broke off: {told or words.partition(_ADVICE_OF_RAY)[0]}")
