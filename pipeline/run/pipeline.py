"""Builds the `PipelineSpec` of an extraction.

- ``read``, ``probe``: tasks that read the plan, open headers and cut windows.
- ``decode``: fetches, decodes and tokenizes. In tasks of its own if the engine has GPUs, else in the encoders' workers.
- ``encode``: one pool for each pool name of the features.
- ``reuse``: adds columns that an earlier version, or the row before a retry, already has.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pyarrow as pa

from pipeline import sources
from pipeline.checkpoint.checkpoint import of_tokenizer
from pipeline.config.bound import BoundConfig, roles_to_open, wanted
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.schema import CONTRACT, FIXED
from pipeline.core.versions import installed
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.shards.row_files import footer
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.node_check import NodeCheck
from pipeline.engine.spec import PipelineSpec, SinkSpec, StageSpec, WorkersSpec
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import CALLS_ON_GPU, EncodeStage
from pipeline.stages.probe import ProbeStage, ReadPlanStage
from pipeline.stages.reuse import KeepColumnsStage, ReuseColumnsStage, ReuseSource, StoredTimes
from pipeline.storage import settings as storage_settings

_PROBE_CPUS = 0.05
"""CPUs of a probe task. Small, so that several fit into what actors leave of a CPU."""
_SINK_ROWS = 32
_LIBRARIES_BYTES = 512 << 20
"""Memory of a worker's processes without data and models, in bytes."""


def wants_gpu(config: PipelineConfig) -> bool:
    """Returns whether to use GPUs if there are any: a pool asks for one, or an encoder's device is not ``cpu``."""
    pools = (config.compute.pools[feature.pool] for feature in config.features.values())
    devices = (getattr(feature.encoder, "device", "cpu") for feature in config.features.values())
    return any(pool.num_gpus for pool in pools) or any(device != "cpu" for device in devices)


def pipeline_spec(bound: BoundConfig, reuse: ReuseSource | None, run_id: str, root: str, on_gpu: bool) -> PipelineSpec:
    """Returns the spec of the pipeline for a config.

    Args:
        reuse: where columns are taken from. None: everything is computed.
        run_id: id of the run that writes the rows.
        root: the version's folder.
        on_gpu: the engine has GPUs, and `wants_gpu` is true.
    """
    config, features = bound.config, bound.features
    limits = config.decoders.limits if config.decoders.limits.isolate else None
    splitter = BlockSplitter(features, config.decoders.limits.block_bytes)
    other = reuse if reuse is not None and not reuse.own else None
    own_times = StoredTimes(reuse.root, _shards(reuse)) if reuse is not None and reuse.own else None
    other_times = StoredTimes(other.root, _shards(other)) if other is not None and other.other_times else None
    probe = ProbeStage(config, features, other.read if other else None, other_times, own_times)
    reused = frozenset(feature.name for feature in other.features) if other else frozenset[str]()
    pools = list(dict.fromkeys(feature.config.pool for feature in features))
    workers = {"probe": WorkersSpec("tasks", num_cpus=_PROBE_CPUS)}
    stages = [
        StageSpec("read", ReadPlanStage(), "probe"),
        StageSpec("probe", probe, "probe", limits=limits, block_rows=config.block_rows),
        StageSpec(
            "decode",
            DecodeStage(config, features, reused),
            "decode" if on_gpu else pools[0],
            limits=limits,
            splitter=splitter,
        ),
    ]
    if on_gpu:
        workers["decode"] = WorkersSpec("tasks", num_cpus=1.0)
    for pool in pools:
        asked = config.compute.pools[pool]
        workers[pool] = WorkersSpec(
            "pool",
            asked.num_cpus,
            asked.num_gpus if on_gpu or config.compute.missing_gpus == "refuse" else 0.0,
            asked.min_actors,
            asked.max_actors,
            concurrent_blocks=CALLS_ON_GPU if on_gpu and asked.num_gpus != 0 else 1,
        )
        hosted = tuple(feature for feature in features if feature.config.pool == pool)
        encode = EncodeStage(config, hosted, threads=max(1, int(asked.num_cpus or 1)))
        name = "encode" if len(pools) == 1 else f"encode {pool}"
        stages.append(StageSpec(name, encode, pool, splitter=splitter, journaled=True))
    if reuse is not None:
        source = reuse.root, _shards(reuse), reuse.features
        cuts_text = config.text_windows() is not None
        stage: Any = KeepColumnsStage(*source, cuts_text) if reuse.own else ReuseColumnsStage(*source)
        stages.append(StageSpec("reuse", stage, pools[-1]))
    sink, task_bytes = _sink(bound, run_id, root), _LIBRARIES_BYTES + config.decoders.limits.block_bytes
    check = node_check(config, features, root, on_gpu) if bound.engine == "ray" else None
    what = tuple(stages), workers, sink, config.block_rows, on_gpu, task_bytes
    return PipelineSpec(*what, check, _model_bytes(features), storage_settings.current(), config.metrics)


def node_check(config: PipelineConfig, features: tuple[BoundFeature, ...], root: str, on_gpu: bool) -> NodeCheck:
    """Returns what each machine needs that computes for a config. Arguments as for `pipeline_spec`."""
    checkpoints = [one.checkpoint for one in features if one.checkpoint is not None]
    for one in features:
        tokenizer = one.config.tokenizer
        if tokenizer.kind == "text" and tokenizer.checkpoint is not None and tokenizer.revision is None:
            where = f"features.{one.name}.tokenizer.checkpoint"
            checkpoints.append(of_tokenizer(tokenizer.checkpoint, None, where))
    used = {name: version for name, version in installed().items() if name not in ("python", "decord")}
    if config.decoders.video.kind == "decord":
        used["decord"] = installed()["decord"]
    return NodeCheck(
        versions=used,
        checkpoints=tuple({one.path: one for one in checkpoints}.values()),
        heads={
            f"features.{feature.name}.head.weights": path
            for feature in features
            if (path := getattr(feature.config.head, "weights", None)) is not None
        },
        roles=roles_to_open(wanted(config)),
        allowed=sources.build(config.source).allowed_roots(),
        storage=storage_settings.current(),
        root=root,
        uses_gpus=on_gpu,
        encodes_on_cpus=any(config.compute.pools[feature.config.pool].num_gpus == 0 for feature in features),
    )


def _model_bytes(features: tuple[BoundFeature, ...]) -> int:
    """Returns the estimated memory of each model once: twice its files' bytes, since it may be computed in a wider
    dtype than it is stored in."""
    checkpoints = {feature.checkpoint.path: feature.checkpoint for feature in features if feature.checkpoint}
    return 2 * sum(one.weights_bytes() for path, one in checkpoints.items() if os.path.isdir(path))


def _shards(reuse: ReuseSource) -> list[File]:
    """Returns the shards that columns are taken from, without the positions of deleted rows, which are not needed."""
    return [dataclasses.replace(shard, deleted=()) for shard in reuse.snapshot.shards]


def _sink(bound: BoundConfig, run_id: str, root: str) -> SinkSpec:
    """Returns the sink that writes the rows of this run, with their lineage, into the version at ``root``."""
    config, features = bound.config, bound.features
    passthrough = sources.build(config.source).passthrough()
    schema = pa.schema([*FIXED, *passthrough, *(field for feature in features for field in feature.fields())])
    lineage = {
        "contract": CONTRACT,
        "run_id": run_id,
        "window": config.window.model_dump(mode="json"),
        "features": {feature.name: feature.lineage() for feature in features},
        "versions": installed(),
    }
    columns = {feature.name: [field.name for field in feature.fields()] for feature in features}
    stored, output = footer(schema, lineage), config.output

    def open_writer(name: str) -> ShardWriter:
        return ShardWriter(root, name, run_id, columns, stored, output)

    return SinkSpec(open_writer, run_id, min_rows=16 * min(config.block_rows, _SINK_ROWS))
