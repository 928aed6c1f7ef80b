"""The pipeline of an extraction, as a spec.

probe tasks: read the plan, open headers, cut windows
decode: fetch, decode, tokenize; on hosts without GPUs in the encoders' workers, with GPUs in tasks of their own
encode: one pool for each pool name that a feature has
reuse: columns that an earlier version, or the row before a retry, has already
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from pipeline import sources
from pipeline.config.bound import BoundConfig
from pipeline.core.schema import CONTRACT, FIXED
from pipeline.core.versions import installed
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.shards.row_files import footer
from pipeline.dataset.shards.writer import ShardWriter
from pipeline.engine.spec import PipelineSpec, SinkSpec, StageSpec, WorkersSpec
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import CALLS_ON_GPU, EncodeStage
from pipeline.stages.probe import ProbeStage, ReadPlanStage
from pipeline.stages.reuse import KeepColumnsStage, ReuseColumnsStage, ReuseSource, StoredTimes

_SMALL_CPUS = 0.05
"""What a probe task asks for: more of them must fit next to actors than there are CPUs left."""
_SINK_ROWS = 32


def wants_gpu(bound: BoundConfig) -> bool:
    """Returns whether GPUs are used where there are some: a pool asks for one, or an encoder does not say ``cpu``."""
    pools = (bound.config.compute.pools[feature.config.pool] for feature in bound.features)
    devices = (getattr(feature.config.encoder, "device", "cpu") for feature in bound.features)
    return any(pool.num_gpus for pool in pools) or any(device != "cpu" for device in devices)


def pipeline_spec(bound: BoundConfig, reuse: ReuseSource | None, run_id: str, root: str, on_gpu: bool) -> PipelineSpec:
    """Returns what runs for a config.

    Args:
        reuse: where columns are taken from. None: everything is computed.
        run_id: of the rows.
        root: the version's folder.
        on_gpu: the engine has GPUs, and `wants_gpu`.
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
    workers = {"probe": WorkersSpec("tasks", num_cpus=_SMALL_CPUS)}
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
            asked.num_gpus,
            asked.min_actors,
            asked.max_actors,
            concurrent_blocks=CALLS_ON_GPU if on_gpu else 1,
        )
        hosted = tuple(feature for feature in features if feature.config.pool == pool)
        encode = EncodeStage(config, hosted, threads=max(1, int(asked.num_cpus or 1)))
        name = "encode" if len(pools) == 1 else f"encode {pool}"
        stages.append(StageSpec(name, encode, pool, splitter=splitter, journaled=True, own_process=not on_gpu))
    if reuse is not None:
        source = reuse.root, _shards(reuse), reuse.features
        cuts_text = config.text_windows() is not None
        stage: Any = KeepColumnsStage(*source, cuts_text) if reuse.own else ReuseColumnsStage(*source)
        stages.append(StageSpec("reuse", stage, pools[-1]))
    return PipelineSpec(tuple(stages), workers, _sink(bound, run_id, root), config.block_rows)


def _shards(reuse: ReuseSource) -> list[File]:
    """The shards that rows are taken from, without the positions of deleted rows, which no row names."""
    return [dataclasses.replace(shard, deleted=()) for shard in reuse.snapshot.shards]


def _sink(bound: BoundConfig, run_id: str, root: str) -> SinkSpec:
    """Writes the rows of this run into the version at ``root``, with their lineage."""
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
