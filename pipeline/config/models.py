"""PipelineConfig and its sections: the settings of an extraction, typed, frozen and validated.

Errors are one line: the path in the config, what was found, what is allowed. This module opens no files and imports no
large library. `pipeline.run.preparation` checks the rest.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.nightly import NightlyConfig
from pipeline.core.errors import ConfigError, NotAllowed
from pipeline.core.media import Modality
from pipeline.core.schema import FAILURES, FIXED, Emit, column
from pipeline.core.section import Section
from pipeline.dataset.output import OutputConfig
from pipeline.decoders import DecodersConfig
from pipeline.encoders import EncoderConfig
from pipeline.heads import HeadConfig, NativeConfig
from pipeline.sources import SourceConfig
from pipeline.storage.settings import DEFAULT, StorageConfig
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.openlineage import OpenLineageConfig
from pipeline.tokenizers import TokenizerConfig

EngineName = Literal["local", "ray", "inline"]
_NAME = r"^[a-z][a-z0-9_]*$"
_ROWS = {"text": (256, 512), "image": (32, 128), "audio": (8, 128), "video": (8, 32)}
"""Fewest and most rows of a block, by its largest medium: a row of text is a kilobyte, and batches are sorted within a
block; a row of video is megabytes."""
_SOUND_S, _SOUND_ROWS = 1280.0, 32
"""Seconds of sound in a block; rows of a block if windows have no length."""


class WindowConfig(Section):
    """How samples that have times are cut into windows. There is one window length per config."""

    length_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds of a window. null: one window for the whole sample."""
    overlap_s: float = Field(default=0.0, ge=0)
    """Seconds that neighbouring windows share."""
    tail: Literal["keep", "merge", "drop"] = "keep"
    """What happens to a last window shorter than ``length_s``: it is kept, merged into the one before, or dropped."""
    repeat_tokens: bool = False
    """True: tokens of untimed text and images are repeated in every window of their sample, not only in window 0."""
    max_windows: int = Field(default=100_000, ge=1)
    """A sample with more windows is a failure (``limit``): a wrong time in a file must not give millions of rows."""

    @model_validator(mode="after")
    def _fits(self) -> WindowConfig:
        if self.overlap_s and (self.length_s is None or self.overlap_s >= self.length_s):
            raise NotAllowed(f"{self.overlap_s} with length_s {self.length_s}", "less than length_s", "overlap_s")
        return self


class StoreConfig(Section):
    """Storage dtypes of a feature."""

    embedding: Literal["float32", "float16"] = "float32"
    tokens: Literal["auto", "float32", "float16"] = "auto"
    """``auto``: float16, but float32 where the model is native bfloat16."""
    layout: Literal["list", "fixed"] = "list"
    """Type of embedding columns: lists, which all Parquet readers support, or lists of fixed size (docs/reading.md)."""


class FeatureConfig(Section):
    """A named output: modality, tokenizer, encoder, head and what to emit."""

    modality: Modality
    tokenizer: TokenizerConfig
    encoder: EncoderConfig
    head: HeadConfig = NativeConfig()
    emit: tuple[Emit, ...] = ("embedding",)
    store: StoreConfig = StoreConfig()
    pool: str = Field(default="default", pattern=_NAME)
    """Name of the pool in ``compute.pools`` whose actors run the encoder."""

    @field_validator("emit")
    @classmethod
    def _emit_something(cls, emit: tuple[Emit, ...]) -> tuple[Emit, ...]:
        if not emit or len(set(emit)) != len(emit):
            raise NotAllowed(f"found {list(emit)}", "name at least one output, each once")
        return emit


class FailureConfig(Section):
    """The failure budget. A run that exceeds it ends with exit code 3, and what it wrote stays valid.

    Retried rows do not count.
    """

    max_fraction: float = Field(default=0.05, ge=0, le=1)
    """Most rows with a failed feature, as a fraction of all rows."""
    min_rows: int = Field(default=200, ge=0)
    """``max_fraction`` is not applied to fewer rows."""
    max_rows: int | None = Field(default=None, ge=0)
    """Most rows with a failed feature. null: no limit."""
    allow_all: bool = False
    """True: it is not an error by itself if all of five or more new rows fail, or half of twenty or more."""
    max_attempts: int = Field(default=3, ge=1)
    """How many runs try a transient failure (``io``, ``memory``, ``missing``, an encoder's ``crash``)."""


class PoolConfig(Section):
    """A pool of actors that run encoders."""

    num_gpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """GPUs of one actor, fractions allowed. null: 1 if the cluster has GPUs, else 0."""
    num_cpus: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """CPUs of one actor. null: 1, or less if all actors together would leave no CPU of a node to tasks."""
    min_actors: int | None = Field(default=None, ge=1)
    max_actors: int | None = Field(default=None, ge=1)
    """Most actors. null: one per GPU, or per CPU core on a host without GPUs; on a cluster as many as fit on the nodes
    that join, too."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.min_actors and self.max_actors and self.min_actors > self.max_actors:
            raise NotAllowed(f"{self.min_actors} with max_actors {self.max_actors}", "at most as many", "min_actors")
        return self


class EngineConfig(Section):
    """What runs the pipeline."""

    kind: Literal["auto", "local", "ray", "inline"] = "auto"
    """``local``: processes of this machine. ``ray``: Ray Data, on a cluster or on a local one. ``inline``: one block
    after another in this process, for debugging. ``auto``: ``ray`` if an address is given (``compute.address`` or
    ``RAY_ADDRESS``) or if this machine has GPUs that a pool may use, else ``local``."""


class ComputeConfig(Section):
    """Where a run computes: cores, the Ray cluster, the size of blocks, the pools of actors."""

    address: str | None = None
    """Address of a Ray cluster. null: ``RAY_ADDRESS`` if set, else a local cluster is started."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPU cores that a run uses on this machine. null: all that its affinity and its cgroup allow."""
    wait_for_nodes_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)
    """How long to wait for a first node of a Ray cluster with a CPU, and for the declared GPUs, in seconds."""
    missing_gpus: Literal["refuse", "use_cpu"] = "refuse"
    """What happens if pools ask for GPUs and there are none, or nodes declare GPUs that they do not have: it is an
    error, or encoders run on CPUs, with a warning in the report."""
    block_rows: int | None = Field(default=None, ge=1)
    """Rows of a block from decoding to encoding. null: 32 if a feature reads video, 128 if one reads images or windows
    of sound of up to 10 s (fewer for longer ones, down to 32), 512 for text only. A small corpus has smaller blocks, so
    that every core gets some."""
    pools: dict[str, PoolConfig] = Field(default_factory=lambda: {"default": PoolConfig()})

    def cluster(self) -> tuple[str | None, str]:
        """Returns the address of the Ray cluster to join, None for a local one; and the setting that names it."""
        return (self.address, "compute.address") if self.address else (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS")


class PipelineConfig(Section):
    """All settings of an extraction."""

    source: SourceConfig
    output: OutputConfig
    features: dict[str, FeatureConfig] = Field(min_length=1)
    window: WindowConfig = WindowConfig()
    decoders: DecodersConfig = DecodersConfig()
    failures: FailureConfig = FailureConfig()
    storage: StorageConfig = DEFAULT
    engine: EngineConfig = EngineConfig()
    compute: ComputeConfig = ComputeConfig()
    nightly: NightlyConfig = NightlyConfig()
    openlineage: OpenLineageConfig | None = None
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def _names(self) -> PipelineConfig:
        columns = dict.fromkeys([*FIXED.names, *FAILURES.names], "a fixed column")
        for name, feature in self.features.items():
            if not re.fullmatch(_NAME, name):
                raise NotAllowed(
                    "no name for columns", "lower case letters, digits and _, a letter first", f"features.{name}"
                )
            for part in ("embedding", "tokens", "prefix_tokens", "token_ids", "grid", "times"):
                taken = columns.setdefault(column(name, part), name)
                if taken != name:
                    raise NotAllowed(
                        f"its column {column(name, part)!r} is {taken}'s already",
                        "rename the feature",
                        f"features.{name}",
                    )
            if feature.pool not in self.compute.pools:
                known = ", ".join(self.compute.pools)
                raise NotAllowed(
                    f"found {feature.pool!r}", f"a pool of compute.pools: {known}", f"features.{name}.pool"
                )
        return self

    @property
    def block_rows(self) -> int:
        """Most rows of a block: ``compute.block_rows``, or a number for the largest medium."""
        if self.compute.block_rows is not None:
            return self.compute.block_rows
        if self.text_windows() is not None:  # each window of a text contains the whole text
            return _ROWS["video"][1]
        most = _ROWS[self._largest][1]
        if self._largest == "audio":
            length_s = self.window.length_s
            return _SOUND_ROWS if length_s is None else max(_SOUND_ROWS, min(most, int(_SOUND_S / length_s)))
        return most

    @property
    def least_rows(self) -> int:
        """Fewest rows of a block, if there are as many. Smaller blocks of a small corpus give every core some rows."""
        return self.compute.block_rows or _ROWS[self._largest][0]

    @property
    def _largest(self) -> Modality:
        """The modality with the largest rows among those that the features read."""
        read = {feature.modality for feature in self.features.values()}
        return next(one for one in ("video", "audio", "image", "text") if one in read)

    def text_windows(self) -> str | None:
        """Returns the name of the feature whose tokenizer cuts texts into token windows, or None.

        Raises:
            ConfigError: several features cut texts.
        """
        names = [
            name
            for name, feature in self.features.items()
            if feature.tokenizer.kind == "text" and feature.tokenizer.overflow == "windows"
        ]
        if len(names) > 1:
            raise ConfigError(
                f"features.{names[1]}.tokenizer.overflow",
                f"'windows', and so has {names[0]!r}",
                "one feature cuts the texts; the others take its windows: overflow: truncate",
            )
        return names[0] if names else None
