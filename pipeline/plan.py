"""What is to do: the samples that the source lists, and how a sample is cut into windows. No Ray, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import sources, storage
from pipeline.config import PipelineConfig, WindowConfig
from pipeline.errors import ConfigError, SampleError
from pipeline.features import Feature
from pipeline.media import Modality
from pipeline.schema import ROLES


@dataclass
class Plan:
    """The samples of a run, in blocks, and what was left aside."""

    blocks: list[pa.Table] = field(default_factory=list)
    samples: int = 0
    samples_by_role: dict[str, int] = field(default_factory=dict)
    unused: int = 0
    """Listed samples that hold nothing any feature reads."""


@dataclass(frozen=True)
class Prepared:
    """A checked config: its features bound to their checkpoints, and the plan."""

    config: PipelineConfig
    features: tuple[Feature, ...]
    plan: Plan


def wanted(config: PipelineConfig) -> set[Modality]:
    """The modalities that some feature reads."""
    return {feature.modality for feature in config.features.values()}


def roles_to_open(modalities: set[Modality]) -> tuple[str, ...]:
    """Roles of files that may hold one of ``modalities``: a video has a sound track, ``other`` may be anything."""
    return tuple(
        role
        for role in ROLES
        if role in modalities or role == "other" or (role == "video" and modalities & {"audio", "image"})
    )


def make(config: PipelineConfig) -> Plan:
    """List the corpus. Raises ``ConfigError``: nothing to list, duplicate ids."""
    source = sources.build(config.source)
    source.check("source")
    if source.lists(storage.join(config.output.path, config.output.version, "data", "shard.parquet")):
        raise ConfigError(
            "output.path",
            f"{config.output.path!r} lies inside the corpus, where the next listing would find its shards",
            "a folder outside of it, or one that source.exclude names",
        )
    roles = roles_to_open(wanted(config))
    plan = Plan()
    for table in source.list():
        readable = pa.array([False] * len(table))
        for role in roles:
            has = pc.is_valid(table[f"{role}_uri"])
            readable = pc.or_(readable, has)
            plan.samples_by_role[role] = plan.samples_by_role.get(role, 0) + (pc.sum(has).as_py() or 0)
        if "text" in wanted(config):
            readable = pc.or_(readable, pc.is_valid(table["inline_text"]))
        used = table.filter(readable)
        plan.unused += len(table) - len(used)
        plan.samples += len(used)
        plan.blocks.extend(_blocks(used, config.compute.block_rows))
    return plan


def _blocks(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    for start in range(0, len(table), rows):
        yield table.slice(start, rows).combine_chunks()


def cut(end_s: float, window: WindowConfig) -> list[tuple[float, float]]:
    """Windows ``[start_s, end_s)`` that cover ``[0, end_s)``, the last one ending where the media ends.

    Boundaries are multiples of ``length_s - overlap_s``, computed by multiplication so that they do
    not drift.

    Raises:
        SampleError: ``limit``, more than ``max_windows``.
    """
    length = window.length_s
    if length is None or end_s <= length:
        if length is not None and end_s < length and window.tail == "drop":
            return []
        return [(0.0, end_s)]
    step = length - window.overlap_s
    if not (end_s - window.overlap_s) / step < window.max_windows + 1e-9:
        raise SampleError("limit", f"{end_s:.6g} s make more than {window.max_windows} windows: see window.max_windows")
    count = max(1, math.ceil((end_s - window.overlap_s) / step - 1e-9))
    windows = [(i * step, min((i + 1) * step + window.overlap_s, end_s)) for i in range(count)]
    last_start, last_end = windows[-1]
    if last_end - last_start < length - 1e-9:
        if window.tail == "drop":
            windows.pop()
        elif window.tail == "merge":
            windows.pop()
            windows[-1] = (windows[-1][0], end_s)
    return windows
