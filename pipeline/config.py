"""PipelineConfig: everything that one extraction is, typed, frozen and validated.

``load(path, overrides)`` reads YAML. Errors are one line: the path in the file, what was found, what
is allowed. Nothing heavy is imported and nothing is opened here: `pipeline.plan` checks the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline import storage, yamls
from pipeline.core.errors import ConfigError, NotAllowed, one_line
from pipeline.core.media import Modality
from pipeline.core.redaction import has_secret
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
_MAX_BYTES = 1 << 20
"""Of a config file."""
_SECRET = ("a URL with a password or a signature", "leave it out: secrets come from the environment")
_MAX_PARENTS = 50
"""Of a key of an override, as deep as YAML may go."""
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
    pools: dict[str, PoolConfig] = {"default": PoolConfig()}

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


def load(path: str, overrides: list[str] | None = None) -> PipelineConfig:
    """Read a YAML config. ``overrides``: ``dotted.key=value``, the value in YAML.

    A path in the file that begins with ``./`` or ``../`` is relative to the file; any other relative
    path, and every path of an override, to the working directory.

    Raises:
        ConfigError: with the path in the YAML, what was found, what is allowed.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(path, f"over {_MAX_BYTES} bytes", "a config has a few thousand")
        text = data.decode()
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", "give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not YAML (not UTF-8 at byte {error.start})", "save it as UTF-8") from error
    raw = yamls.parse(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(path, f"holds {type(raw).__name__}", "a mapping with source, output and features")
    raw = _anchored(raw, os.path.dirname(os.path.abspath(path)))
    for override in overrides or []:
        _override(raw, override)
    return parse(raw)


def parse(raw: dict[str, Any]) -> PipelineConfig:
    """A config from plain values. Raises ``ConfigError``."""
    _refuse_secrets(raw, ())
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        raise _config_error(error, raw) from None


def _refuse_secrets(value: Any, where: tuple[str, ...]) -> None:
    if isinstance(value, str) and has_secret(value):
        raise ConfigError(".".join(where), *_SECRET)
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and has_secret(key):
                _refuse_secrets(key, (*where, "(a key)"))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_secrets(item, (*where, str(key)))


def here(config: PipelineConfig) -> PipelineConfig:
    """``config`` with the paths that workers open made absolute: their working directory is another."""
    features = {}
    for name, feature in config.features.items():
        head, tokenizer = feature.head, feature.tokenizer
        if head.kind == "linear":
            head = head.model_copy(update={"weights": storage.absolute(head.weights)})
        if tokenizer.kind == "text" and tokenizer.checkpoint is not None and os.path.isdir(tokenizer.checkpoint):
            tokenizer = tokenizer.model_copy(update={"checkpoint": storage.absolute(tokenizer.checkpoint)})
        features[name] = feature.model_copy(update={"head": head, "tokenizer": tokenizer})
    output = config.output.model_copy(update={"path": storage.absolute(config.output.path)})
    return config.model_copy(update={"features": features, "output": output})


def digest(section: Any) -> str:
    """sha256 over plain values, in canonical JSON."""
    return hashlib.sha256(json.dumps(section, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _anchored(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(os.path.join(folder, value))
    return value


def _override(raw: dict[str, Any], override: str) -> None:
    if has_secret(override):  # as a whole: a URL's own "=" may be the first
        raise ConfigError("--set", *_SECRET)
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set", repr(override), "write dotted.key=value")
    value = yamls.parse(text, f"--set {key}")
    section: Any = raw
    *parents, last = key.split(".")
    if len(parents) > _MAX_PARENTS:
        raise ConfigError(f"--set {key}", f"{len(parents)} levels", "no config is so deep")
    for depth, name in enumerate(parents):
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            found = ".".join(parents[: depth + 1])
            raise ConfigError(f"--set {key}", f"{found} is {section!r}, not a section", "name a key of a section")
    section[last] = value


def _config_error(error: ValidationError, raw: dict[str, Any]) -> ConfigError:
    """The first error, in one line; pydantic's tags of unions are no part of the path."""
    errors = error.errors(include_url=False)
    first = errors[0]
    where = _path_in(raw, first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    found = _shown(first["input"])
    if first["type"] == "extra_forbidden":
        section = _section_at(first["loc"][:-1])
        known = f"known keys: {', '.join(section)}" if section else "no such key"
        return ConfigError(where, f"unknown key {first['loc'][-1]!r}", known + more)
    if first["type"] == "missing":
        return ConfigError(where, "is missing", "it is required" + more)
    if first["type"].startswith("union_tag"):
        kinds = ", ".join(_kinds_at(first["loc"]))
        kind = first["ctx"].get("tag")
        return ConfigError(f"{where}.kind", f"found {kind!r}" if kind else "is missing", f"one of {kinds}{more}")
    refused = first.get("ctx", {}).get("error")
    if isinstance(refused, NotAllowed):
        place = ".".join(part for part in (where if first["loc"] else "", refused.where) if part)
        return ConfigError(place, refused.found, refused.allowed + more)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(where, f"found {found}", message[0].lower() + message[1:] + more)


def _shown(value: Any) -> str:
    try:
        return one_line(repr(value), 80)
    except (ValueError, RecursionError):  # a number of thousands of digits; nested without end
        return f"a value of type {type(value).__name__} that is too large to show"


def _path_in(raw: Any, loc: tuple[str | int, ...]) -> str:
    names: list[str] = []
    value = raw
    tagged = False
    for part in loc:
        if not tagged and isinstance(value, dict) and value.get("kind") == part:
            tagged = True
            continue
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value, tagged = value[part], False
        names.append(str(part))
    return ".".join(names) or "config"


def _kinds_at(loc: tuple[str | int, ...]) -> list[str]:
    """The kinds that a section at ``loc`` may have."""
    members = get_args(_model_at(loc))
    return [kind for member in members for kind in get_args(member.model_fields["kind"].annotation)]


def _section_at(loc: tuple[str | int, ...]) -> list[str]:
    """Keys of the section at ``loc``."""
    return list(getattr(_model_at(loc), "model_fields", {}))


def _model_at(loc: tuple[str | int, ...]) -> Any:
    """The section at ``loc``, or a union of sections, walked through the models' own fields; None: no such."""
    model: Any = PipelineConfig
    for part in loc:
        model = _step(model, part)
    return model


def _step(model: Any, part: str | int) -> Any:
    if hasattr(model, "model_fields"):
        info = model.model_fields.get(part)
        return _plain(info.annotation) if info else None
    if get_origin(model) is dict:
        return _plain(get_args(model)[1])
    for member in get_args(model):  # a union: the tag says which member
        kind = getattr(member, "model_fields", {}).get("kind")
        if kind is not None and part in get_args(kind.annotation):
            return member
    return None


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
