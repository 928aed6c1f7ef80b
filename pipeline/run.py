"""An extraction: list -> extract -> commit -> report. Builds the Ray Data graph and runs it.

    [probe, cut] tasks -> [fetch, decode, tokenize] tasks -> [encode] actors, one pool a name -> [write] tasks

On a host without GPUs decoding fuses into the first pool's actors, one a core; beside a GPU it never
does. Scheduling, streaming, backpressure and retries are Ray Data's.
"""

from __future__ import annotations

import datetime
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
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline import config as configs
from pipeline import features as binding
from pipeline import plan as planning
from pipeline import report as reporting
from pipeline import sources, storage
from pipeline.config import PipelineConfig, PoolConfig
from pipeline.errors import BudgetExceeded, ConfigError, TesseraError, describe
from pipeline.features import Feature
from pipeline.plan import Prepared
from pipeline.progress import MemoryMeter, Progress, quiet
from pipeline.schema import CONTRACT, FIXED
from pipeline.sinks.ray_sink import ShardSink
from pipeline.sinks.shards import ShardWriter, Written, footer
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from pipeline.stages.rows import ROWS

_TASK_CPUS = 0.25
_ANSWER_S = 10.0
_FREE_CPUS = 1.0
"""What actors leave to tasks: Ray's own repartitioning takes a whole CPU, and waits for ever for less."""
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


def prepare(config: PipelineConfig) -> Prepared:
    """Check everything and list the corpus; nothing is computed. Raises ``ConfigError``."""
    config = configs.here(config)
    features = binding.bind(config)
    _check_output(config)
    _check_passthrough(config, features)
    return Prepared(config, features, planning.make(config))


def extract(prepared: Prepared, show_progress: bool = True) -> dict[str, Any]:
    """Run the extraction, commit it and return the report.

    Raises:
        BudgetExceeded: more rows failed than the config allows; the dataset is committed all the same.
        TesseraError: rows or cells are unaccounted for (a defect), or the engine failed.
    """
    config, started = prepared.config, time.time()
    run_id = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    root = storage.join(config.output.path, config.output.version)
    with quiet() as terminal:
        _start_ray(config)
        sink = _sink(prepared, run_id, root)
        progress = Progress(prepared.plan.samples, terminal if show_progress else None)
        with MemoryMeter() as memory, progress:
            if prepared.plan.blocks:
                try:
                    _graph(prepared, progress).write_datasink(sink, ray_remote_args={"num_cpus": _TASK_CPUS})
                except Exception as error:
                    raise _told(error, run_id, progress.cause()) from error
    written = sink.written
    problems = written.problems()
    if written.samples != prepared.plan.samples:
        problems.append(f"{prepared.plan.samples} samples planned, {written.samples} arrived")
    if problems:
        raise TesseraError(f"the books of run {run_id} do not balance: {'; '.join(problems)}")
    report = reporting.build(
        prepared,
        written,
        run_id=run_id,
        seconds=time.time() - started,
        startup_seconds=progress.first_row_s,
        peak_memory_bytes=memory.peak,
        versions=versions(),
    )
    _commit(root, run_id, written)
    storage.publish(storage.join(root, "_runs", run_id, "config.json"), config.model_dump_json(indent=1).encode())
    storage.publish(storage.join(root, "_runs", run_id, "report.json"), json.dumps(report, indent=1).encode())
    _judge(config, report)
    return report


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
        self.stages, self.progress, self.last = stages, progress, last
        self.broken: Exception | None = None
        try:
            for stage in stages:
                stage.setup()
        except Exception as error:  # told at the first call: of an actor that does not start Ray tells no cause
            self.broken = error

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            if self.broken is not None:
                raise self.broken
            for stage in self.stages:
                table = stage(table)
        except Exception as error:
            cause = error if isinstance(error, TesseraError) else TesseraError(describe(error))
            ray.wait([self.progress.broke.remote(cause)], timeout=_ANSWER_S)
            raise
        if self.last:
            self.progress.add.remote(*Progress.count(table))
        return table


_READY: dict[bytes, _Stage] = {}


class _Task:
    """A stage as a plain function for Ray tasks; a worker process keeps it set up between tasks."""

    def __init__(self, stage: Any, progress: Any) -> None:
        self.stage, self.progress, self.key = stage, progress, secrets.token_bytes(8)
        self.__name__ = type(stage).__name__

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.key not in _READY:
            _READY[self.key] = _Stage((self.stage,), self.progress)
        return _READY[self.key](table)


def _graph(prepared: Prepared, progress: Progress) -> Any:
    config, features = prepared.config, prepared.features
    pools = list(dict.fromkeys(feature.config.pool for feature in features))
    on_gpu = _gpus() > 0 and any(getattr(f.config.encoder, "device", "cpu") != "cpu" for f in features)
    dataset = ray.data.from_arrow(prepared.plan.blocks)
    dataset = _map(dataset, _Task(ProbeStage(config, features), progress.actor), num_cpus=_TASK_CPUS)
    dataset = dataset.repartition(target_num_rows_per_block=config.compute.block_rows)
    decode: tuple[Any, ...] = (DecodeStage(config, features),)
    if on_gpu:
        dataset = _map(dataset, _Task(decode[0], progress.actor), num_cpus=1)
        decode = ()
    sizes = _sizes({name: config.compute.pools[name] for name in pools}, on_gpu, len(prepared.plan.blocks))
    for number, name in enumerate(pools):
        hosted = tuple(feature for feature in features if feature.config.pool == name)
        actors = sizes[name]
        stages = (*decode, EncodeStage(config, hosted, threads=max(1, int(actors.num_cpus))))
        decode = ()
        dataset = dataset.map_batches(
            _Stage,
            fn_constructor_args=(stages, progress.actor, number == len(pools) - 1),
            batch_size=config.compute.block_rows if actors.num_gpus else None,  # Ray insists on a number beside a GPU
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=actors.least, max_size=actors.most, max_tasks_in_flight_per_actor=2),
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus or None,
        )
    return dataset


@dataclass(frozen=True)
class _Actors:
    """Size and resources of a pool."""

    least: int
    most: int
    num_cpus: float
    num_gpus: float


def _sizes(pools: dict[str, PoolConfig], on_gpu: bool, blocks: int) -> dict[str, _Actors]:
    """One actor per GPU, or per core on a host without; all together leave ``_FREE_CPUS`` to tasks.

    Raises:
        ConfigError: more CPUs or GPUs than the cluster has.
    """
    cpus, sizes = float(ray.cluster_resources().get("CPU", 1)), {}
    for name, pool in pools.items():
        num_gpus = pool.num_gpus if pool.num_gpus is not None else float(on_gpu)
        if num_gpus > _gpus():
            raise ConfigError(
                f"compute.pools.{name}.num_gpus", f"{num_gpus:g}", f"the cluster has {_gpus():g} GPUs: at most as many"
            )
        most = pool.max_actors or max(1, int(_gpus() / num_gpus) if num_gpus else int(cpus))
        least = min(pool.min_actors or min(most, max(1, blocks)), most)
        num_cpus = pool.num_cpus or min(1.0, int(100 * (cpus - _FREE_CPUS) / (most * len(pools))) / 100)
        sizes[name] = _Actors(least, most, num_cpus, num_gpus)
    taken = sum(one.most * one.num_cpus for one in sizes.values())
    if taken > cpus - _FREE_CPUS + 1e-6 or any(one.num_cpus <= 0 for one in sizes.values()):
        told = ", ".join(f"{name}: {one.most} actors of {one.num_cpus:g} CPUs" for name, one in sizes.items())
        raise ConfigError(
            "compute.pools",
            f"{told}, on {cpus:g} CPUs",
            f"leave {_FREE_CPUS:g} CPU to the tasks that feed them: fewer actors, or a smaller num_cpus",
        )
    return sizes


def _map(dataset: Any, task: _Task, num_cpus: float) -> Any:
    return dataset.map_batches(task, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=num_cpus)


def _gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0))


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
        address = config.compute.address or os.environ.get("RAY_ADDRESS")
        where = "compute.address" if config.compute.address else "RAY_ADDRESS"
        cores = config.compute.num_cpus or max(2, os.cpu_count() or 1)
        # "local": without it Ray joins a cluster that `ray start` left on this machine
        options = (
            {"address": address} if address else {"address": "local", "num_cpus": cores, "include_dashboard": False}
        )
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            _check_answers(address)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            if address is None:
                raise
            raise ConfigError(
                where, f"no Ray cluster answers at {address!r} ({describe(error)})", "start one there, or leave it out"
            ) from error
        if threading.current_thread() is threading.main_thread():  # Ray's own handler exits with the signal's number
            signal.signal(signal.SIGTERM, on_term)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _check_answers(address: str | None) -> None:
    """Raises ``OSError`` if nothing listens there: Ray itself would wait for minutes, silently."""
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()


def _check_output(config: PipelineConfig) -> None:
    root = storage.join(config.output.path, config.output.version)
    try:
        taken = storage.list_files(storage.join(root, "_snapshots")) or storage.list_files(storage.join(root, "data"))
    except Exception as error:  # any backend may raise anything here
        raise ConfigError(
            "output.path", f"cannot reach {config.output.path!r} ({describe(error)})", "give a folder"
        ) from error
    if storage.in_one_process(config.output.path):
        raise ConfigError("output.path", f"{config.output.path!r} lies in one process's memory", "give a folder")
    if taken:
        raise ConfigError(
            "output.path", f"{root!r} holds a dataset already", "give another output.path or output.version"
        )
    if storage.is_local(config.output.path) and os.path.isfile(storage.split(config.output.path)[1]):
        raise ConfigError("output.path", f"{config.output.path!r} is a file", "give a folder")
    storage.check_writable(root, "output.path")


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


def _commit(root: str, run_id: str, written: Written) -> None:
    """Creating the snapshot exclusively is the commit."""
    snapshot = {
        "contract": CONTRACT,
        "snapshot": 1,
        "run_id": run_id,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "shards": sorted(written.shards, key=lambda shard: str(shard["path"])),
        "failures": sorted(written.failure_shards, key=lambda shard: str(shard["path"])),
    }
    if not storage.publish_new(
        storage.join(root, "_snapshots", "00000001.json"), json.dumps(snapshot, indent=1).encode()
    ):
        raise TesseraError(
            f"another run committed to {root} first; the shards of run {run_id} are not part of the dataset"
        )


def _judge(config: PipelineConfig, report: dict[str, Any]) -> None:
    """Raises ``BudgetExceeded`` past the failure budget."""
    failed, rows = report["rows_with_failures"], report["rows_planned"]
    budget = config.failures
    over = budget.max_rows is not None and failed > budget.max_rows
    if rows >= budget.min_rows and rows and failed / rows > budget.max_fraction:
        over = True
    if over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["failures_by_kind"].items())
        raise BudgetExceeded(
            f"{failed} of {rows} rows failed ({failed / max(1, rows):.1%}; {kinds}), over the budget of "
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
    return TesseraError(f"the run {run_id} broke off: {told or describe(own[-1])}")
