"""PipelineConfig: everything that one extraction is, typed, frozen and validated.

``load(path, overrides)`` reads YAML. Errors are one line: the path in the file, what was found, what
is allowed. Nothing heavy is imported and nothing is opened here: `pipeline.run.planning` checks the rest.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.core.errors import ConfigError, NotAllowed
from pipeline.core.media import Modality
from pipeline.core.schema import FAILURES, FIXED, Emit, column
from pipeline.core.section import Section
from pipeline.dataset.output import OutputConfig
from pipeline.decoders import DecodersConfig
from pipeline.encoders import EncoderConfig
from pipeline.heads import HeadConfig, NativeConfig
from pipeline.sources import SourceConfig
from pipeline.tokenizers import TokenizerConfig

_NAME = r"^[a-z][a-z0-9_]*$"
_ROWS = {"text": (256, 512), "image": (32, 128), "audio": (8, 128), "video": (8, 32)}
"""Rows of a block by its largest medium, at least and at most: a row of text is a kilobyte and batches are sorted
within a block, one of video is megabytes."""
_SOUND_S, _SOUND_ROWS = 1280.0, 32
"""Seconds of sound in a block, and its rows where windows have no length."""


class WindowConfig(Section):
    """How samples that have times are cut. One window length per config."""

    length_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds of a window; null: one window holds the whole sample."""
    overlap_s: float = Field(default=0.0, ge=0)
    """Seconds that neighbouring windows share."""
    tail: Literal["keep", "merge", "drop"] = "keep"
    """A last window shorter than ``length_s``: kept as it is, merged into the one before, or dropped."""
    repeat_tokens: bool = False
    """True: tokens of untimed text and images stand in every window of their sample, not only in window 0."""
    max_windows: int = Field(default=100_000, ge=1)
    """A sample whose times make more is a failure (``limit``): one false time must not make rows without end."""

    @model_validator(mode="after")
    def _fits(self) -> WindowConfig:
        if self.overlap_s and (self.length_s is None or self.overlap_s >= self.length_s):
            raise NotAllowed(f"{self.overlap_s} beside length_s {self.length_s}", "less than length_s", "overlap_s")
        return self


class StoreConfig(Section):
    """Storage dtypes of a feature."""

    embedding: Literal["float32", "float16"] = "float32"
    tokens: Literal["auto", "float32", "float16"] = "auto"
    """``auto``: float16, but float32 where the model is native bfloat16."""
    layout: Literal["list", "fixed"] = "list"
    """Of embeddings: lists, which every reader of Parquet reads; or lists of a fixed size, see docs/reading.md."""


class FeatureConfig(Section):
    """A named output: modality + tokenizer + encoder + head + what to emit."""

    modality: Modality
    tokenizer: TokenizerConfig
    encoder: EncoderConfig
    head: HeadConfig = NativeConfig()
    emit: tuple[Emit, ...] = ("embedding",)
    store: StoreConfig = StoreConfig()
    pool: str = Field(default="default", pattern=_NAME)
    """Name of the actor pool, of ``compute.pools``, that hosts the encoder."""

    @field_validator("emit")
    @classmethod
    def _emit_something(cls, emit: tuple[Emit, ...]) -> tuple[Emit, ...]:
        if not emit or len(set(emit)) != len(emit):
            raise NotAllowed(f"found {list(emit)}", "name at least one output, each once")
        return emit


class FailureConfig(Section):
    """The budget: past it a run ends with exit code 3. What was written stays valid. Rows that are tried again do not
    count."""

    max_fraction: float = Field(default=0.05, ge=0, le=1)
    """Rows with a failed feature / rows."""
    min_rows: int = Field(default=200, ge=0)
    """``max_fraction`` is not judged on fewer rows."""
    max_rows: int | None = Field(default=None, ge=0)
    """Rows with a failed feature, at most."""
    allow_all: bool = False
    """True: it is no error by itself that all of five or more new rows fail, or half of twenty or more."""
    max_attempts: int = Field(default=3, ge=1)
    """Runs that try a transient failure (``io``, ``memory``, ``missing``, an encoder's ``crash``)."""


class PoolConfig(Section):
    """A pool of actors that host encoders."""

    num_gpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """GPUs of one actor, fractions allowed. null: 1 if the cluster has GPUs, else 0."""
    num_cpus: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """CPUs of one actor. null: 1, or less where all actors together would leave nothing of a node to tasks."""
    min_actors: int | None = Field(default=None, ge=1)
    max_actors: int | None = Field(default=None, ge=1)
    """null: one per GPU, or per CPU core on a host without GPUs."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.min_actors and self.max_actors and self.min_actors > self.max_actors:
            raise NotAllowed(f"{self.min_actors} beside max_actors {self.max_actors}", "at most as many", "min_actors")
        return self


class ComputeConfig(Section):
    address: str | None = None
    """Ray cluster; null: ``RAY_ADDRESS`` if set, else a local one."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Cores of a local cluster; null: all."""
    block_rows: int | None = Field(default=None, ge=1)
    """Rows that travel together from decoding to encoding. null: 32 where a feature reads video, 128 where one reads
    pictures or windows of sound of up to 10 s (longer ones: fewer, down to 32), 512 for texts alone; and fewer of a
    small corpus, so that every core has some."""
    pools: dict[str, PoolConfig] = Field(default_factory=lambda: {"default": PoolConfig()})

    def cluster(self) -> tuple[str | None, str]:
        """Address of the Ray cluster that a run joins, None for a local one; and who named it."""
        return (self.address, "compute.address") if self.address else (os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS")


class PipelineConfig(Section):
    source: SourceConfig
    output: OutputConfig
    features: dict[str, FeatureConfig] = Field(min_length=1)
    window: WindowConfig = WindowConfig()
    decoders: DecodersConfig = DecodersConfig()
    failures: FailureConfig = FailureConfig()
    compute: ComputeConfig = ComputeConfig()

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
        """Rows that travel together at most: what ``compute`` says, else by the largest medium."""
        if self.compute.block_rows is not None:
            return self.compute.block_rows
        if self.text_windows() is not None:  # each of a text's windows carries all of it
            return _ROWS["video"][1]
        most = _ROWS[self._largest][1]
        if self._largest == "audio":
            length_s = self.window.length_s
            return _SOUND_ROWS if length_s is None else max(_SOUND_ROWS, min(most, int(_SOUND_S / length_s)))
        return most

    @property
    def least_rows(self) -> int:
        """Rows of a block at least, as far as there are so many: of a small corpus every core is to have some."""
        return self.compute.block_rows or _ROWS[self._largest][0]

    @property
    def _largest(self) -> Modality:
        read = {feature.modality for feature in self.features.values()}
        return next(one for one in ("video", "audio", "image", "text") if one in read)

    def text_windows(self) -> str | None:
        """The feature whose tokenizer cuts texts into token windows, if any."""
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
