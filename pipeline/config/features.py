"""A feature bound to its checkpoint: what the config names, checked, with all that workers need to build it.

``bind`` runs on the driver and finds every mistake that can be found before compute; a ``BoundFeature``
then travels to the workers, which build the tokenizer, the encoder and the head from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from pipeline import encoders, heads, tokenizers
from pipeline.checkpoint.checkpoint import Checkpoint, file_sha256, resolve
from pipeline.config import identity as identities
from pipeline.config.identity import without_defaults
from pipeline.config.loading import digest
from pipeline.config.models import FeatureConfig, PipelineConfig
from pipeline.core.errors import ConfigError, StorageError, describe
from pipeline.core.media import Modality
from pipeline.core.schema import column, feature_fields
from pipeline.encoders.base import Encoder, EncoderSpec
from pipeline.heads.base import Head
from pipeline.storage.retry import is_transient
from pipeline.tokenizers.base import Tokenizer
from pipeline.tokenizers.text import TextTokenizerConfig


@dataclass(frozen=True)
class BoundFeature:
    """One feature of a run. Picklable; holds no weights."""

    name: str
    config: FeatureConfig
    checkpoint: Checkpoint | None
    spec: EncoderSpec
    dim: int | None
    """Width of the stored embedding, after the head."""
    space: str
    normalized: bool
    token_dtype: str
    weights_sha256: str | None
    identity: dict[str, Any]
    """All that decides the values, in plain values, less the keys that are at their default; not where or how fast they
    are computed (`pipeline.config.identity`)."""
    full_identity: dict[str, Any]
    """The same with these keys."""

    @property
    def fingerprint(self) -> str:
        """Digest of `identity`: two features of one fingerprint have the same values."""
        return digest(self.identity)

    @property
    def modality(self) -> Modality:
        return self.config.modality

    @property
    def timed(self) -> bool:
        return self.modality in ("video", "audio")

    def emits(self, *parts: str) -> bool:
        return any(part in self.config.emit for part in parts)

    def column(self, part: str) -> str:
        return column(self.name, part)

    def fields(self) -> list[pa.Field]:
        """The stored columns of this feature."""
        return feature_fields(
            self.name,
            self.config.emit,
            self.spec.token_dim,
            self.config.store.embedding,
            self.token_dtype,
            self.timed,
            self.dim or -1 if self.config.store.layout == "fixed" else -1,
        )

    def tokenizer(self) -> Tokenizer:
        return tokenizers.build(self.config.tokenizer, self._checkpoint_here())

    def encoder(self) -> Encoder:
        return encoders.build(self.config.encoder, self._checkpoint_here(), self.modality, self.config.tokenizer)

    def head(self) -> Head:
        return heads.build(self.config.head, self.spec)

    def lineage(self) -> dict[str, Any]:
        """What the Parquet footer says of this feature."""
        return {
            "modality": self.modality,
            "emit": list(self.config.emit),
            "model": self.checkpoint.name if self.checkpoint else self.config.encoder.kind,
            "model_type": self.spec.model_type,
            "revision": self.checkpoint.revision if self.checkpoint else None,
            "weights_sha256": self.weights_sha256,
            "tokenizer": self.config.tokenizer.kind,
            "processor": self.spec.processor,
            "head": self.config.head.kind,
            "space": self.space,
            "normalized": self.normalized,
            "dim": self.dim,
            "token_dim": self.spec.token_dim,
            "dtype": getattr(self.config.encoder, "dtype", "float32"),
            "embedding_dtype": self.config.store.embedding,
            "token_dtype": self.token_dtype,
            "prompt": getattr(self.config.tokenizer, "prompt", None) or None,
            "fingerprint": self.fingerprint,
        }

    def _checkpoint_here(self) -> Checkpoint | None:
        """The checkpoint on this machine: a hub id is fetched on each node that lacks it."""
        if self.checkpoint is None or os.path.isdir(self.checkpoint.path):
            return self.checkpoint
        found = resolve(self.checkpoint.name, self.checkpoint.revision, self.checkpoint.where)
        return replace(self.checkpoint, path=found.path)


def bind(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """Check every feature of ``config`` against its checkpoint. Raises ``ConfigError``."""
    config.text_windows()
    _check_decoder(config)
    return tuple(_bind(name, feature, config) for name, feature in config.features.items())


def _bind(name: str, feature: FeatureConfig, config: PipelineConfig) -> BoundFeature:
    where = f"features.{name}"
    checkpoint = None
    if isinstance(named := getattr(feature.encoder, "checkpoint", None), str):
        checkpoint = resolve(named, getattr(feature.encoder, "revision", None), f"{where}.encoder.checkpoint")
    encoder = encoders.build(feature.encoder, checkpoint, feature.modality, feature.tokenizer)
    with _blamed(checkpoint, where):
        encoder.check(where)
    _check_device(feature, config, where)
    tokenizer = tokenizers.build(feature.tokenizer, checkpoint)
    if tokenizer.modality != feature.modality:
        raise ConfigError(
            f"{where}.tokenizer.kind",
            f"{feature.tokenizer.kind!r} reads {tokenizer.modality}",
            f"not {feature.modality}",
        )
    with _blamed(checkpoint, where):
        tokenizer.check(f"{where}.tokenizer")
        spec = encoder.spec()
    head = heads.build(feature.head, spec)
    if "embedding" in feature.emit:
        if spec.dim is None:
            raise ConfigError(f"{where}.emit", "'embedding'", f"encoder {feature.encoder.kind!r} gives no embedding")
        head.check(f"{where}.head")
    if spec.token_dim is None and {"tokens", "prefix_tokens"} & set(feature.emit):
        raise ConfigError(f"{where}.emit", "'tokens'", f"encoder {feature.encoder.kind!r} gives no token vectors")
    if "token_ids" in feature.emit and feature.modality != "text":
        raise ConfigError(f"{where}.emit", "'token_ids'", f"{feature.modality} has no token ids")
    weights = checkpoint.weights_sha256() if checkpoint else None
    tokens = feature.store.tokens
    if tokens == "auto":
        tokens = "float32" if spec.native_dtype == "bfloat16" else "float16"
    with_embedding = "embedding" in feature.emit
    space = head.space if with_embedding else spec.space
    identity = partial(_identity, feature, config, checkpoint, weights, space)
    return BoundFeature(
        name=name,
        config=feature,
        checkpoint=checkpoint,
        spec=spec,
        dim=head.dim if with_embedding else None,
        space=space,
        normalized=head.normalized if with_embedding else spec.normalized,
        token_dtype=tokens,
        weights_sha256=weights,
        identity=identity(without_defaults),
        full_identity=identity(_all_keys),
    )


@contextmanager
def _blamed(checkpoint: Checkpoint | None, where: str) -> Iterator[None]:
    """What a model's own classes raise where they read its files becomes a ``ConfigError``: their values are of any
    kind, and each class finds out in its own way."""
    try:
        yield
    except (ConfigError, StorageError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_transient(error):
            raise StorageError(f"cannot read the files of {where} ({describe(error)})") from error
        name = checkpoint.name if checkpoint is not None else "its tokenizer"
        place = checkpoint.where if checkpoint is not None else f"{where}.tokenizer"
        raise ConfigError(
            place, f"the files of {name!r} do not work together ({describe(error)})", "give the model's own files"
        ) from error


def _cut(
    feature: FeatureConfig, config: PipelineConfig, dump: Callable[[BaseModel], dict[str, Any]]
) -> dict[str, Any] | None:
    """What cuts the texts that this feature reads, where another feature's tokenizer does."""
    name = config.text_windows()
    if feature.modality != "text" or name is None or config.features[name] is feature:
        return None
    cutter = config.features[name]
    tokenizer = cutter.tokenizer
    assert isinstance(tokenizer, TextTokenizerConfig), "only texts are cut by tokens"
    named: str = getattr(cutter.encoder, "checkpoint", None) or tokenizer.checkpoint or ""
    revision: str | None = getattr(cutter.encoder, "revision", None) or tokenizer.revision
    values = {key: value for key, value in dump(tokenizer).items() if key not in ("checkpoint", "revision")}
    path = named if os.path.isdir(named) else resolve(named, revision, f"features.{name}").path
    return {**values, "preprocessing": Checkpoint(path, named, revision, "").preprocessing_sha256()}


def _check_device(feature: FeatureConfig, config: PipelineConfig, where: str) -> None:
    """A cluster's devices are its own; of this machine's they can be told."""
    if getattr(feature.encoder, "device", None) != "cuda" or config.compute.address or os.environ.get("RAY_ADDRESS"):
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"{where}.encoder.device", "'cuda', and this machine has no CUDA device", "auto or cpu")


def _check_decoder(config: PipelineConfig) -> None:
    """decord has wheels for x86-64 only; elsewhere it is no dependency."""
    asked = config.decoders.video.kind == "decord" and any(one.modality == "video" for one in config.features.values())
    if asked and find_spec("decord") is None:
        raise ConfigError(
            "decoders.video.kind",
            "'decord', which is not installed here: it has wheels for x86-64 only",
            "pyav, which reads the same files",
        )


def _identity(
    feature: FeatureConfig,
    config: PipelineConfig,
    checkpoint: Checkpoint | None,
    weights: str | None,
    space: str,
    dump: Callable[[BaseModel], dict[str, Any]],
) -> dict[str, Any]:
    """All that decides the values. ``dump``: makes plain values of a section."""
    values = dump(feature)
    values.pop("pool", None)
    for runtime in ("device", "batch_size", "batch_s", "batch_tokens", "max_s", "checkpoint", "revision"):
        values["encoder"].pop(runtime, None)
    # A file counts by its content, wherever it lies.
    if path := values.get("head", {}).get("weights"):
        values["head"]["weights"] = file_sha256(path)
    if name := values["tokenizer"].get("checkpoint"):
        revision = values["tokenizer"].pop("revision", None)
        path = name if os.path.isdir(name) else resolve(name, revision, "tokenizer.checkpoint").path
        values["tokenizer"]["checkpoint"] = Checkpoint(path, name, revision, "").preprocessing_sha256()
    window = dump(config.window)
    window.pop("max_windows", None)
    decoders = dump(config.decoders)
    decoders.pop("limits", None)
    return {
        "decoding": identities.REVISIONS[feature.modality],
        "feature": values,
        "space": space,
        "weights": weights,
        "preprocessing": checkpoint.preprocessing_sha256() if checkpoint else None,
        "window": window,
        "cut": _cut(feature, config, dump),
        "decoders": _without_bounds(decoders),
    }


def _without_bounds(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` without what is ``max_...``: a bound decides whether there is a value and never which."""
    plain = {name: value for name, value in values.items() if not name.startswith("max_")}
    return {name: _without_bounds(value) if isinstance(value, dict) else value for name, value in plain.items()}


def _all_keys(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(mode="json")
