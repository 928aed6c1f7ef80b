"""Features bound to their checkpoints: what the config names, checked, with all that workers need to build it.

`bind` runs on the driver and finds the mistakes that can be found before anything is computed. A `BoundFeature` is then
sent to the workers, which build the tokenizer, the encoder and the head from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from pipeline import encoders, heads, tokenizers
from pipeline.checkpoint.checkpoint import Checkpoint, of_tokenizer, on_this_machine, resolve
from pipeline.checkpoint.digests import file_sha256
from pipeline.checkpoint.fetched import is_remote, path_of_file
from pipeline.config._feature_identity import all_keys, feature_identity
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


@dataclass(frozen=True)
class BoundFeature:
    """One feature of a run. Picklable. Holds no weights."""

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
    """What decides the values, as plain values without the keys that are at their default (`pipeline.config.identity`).
    Where and how fast they are computed is not a part of it."""
    full_identity: dict[str, Any]
    """`identity` with the keys that are at their default."""

    @property
    def fingerprint(self) -> str:
        """Digest of `identity`. Two features with the same fingerprint have the same values."""
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
        """Returns the stored columns of this feature."""
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
        config = self.config.tokenizer
        if config.kind == "text" and config.checkpoint is not None and is_remote(config.checkpoint):
            where = f"features.{self.name}.tokenizer.checkpoint"
            found = of_tokenizer(config.checkpoint, config.revision, where)
            stays = found.preprocessing_sha256() == self.full_identity["feature"]["tokenizer"]["checkpoint"]
            config = config.model_copy(update={"checkpoint": _unchanged(found.path, stays, config.checkpoint, where)})
        return tokenizers.build(config, self.checkpoint and on_this_machine(self.checkpoint, False))

    def encoder(self) -> Encoder:
        checkpoint = self.checkpoint and on_this_machine(self.checkpoint)
        return encoders.build(self.config.encoder, checkpoint, self.modality, self.config.tokenizer)

    def head(self) -> Head:
        config = self.config.head
        if config.kind == "linear" and is_remote(config.weights):
            where = f"features.{self.name}.head.weights"
            path = path_of_file(config.weights, where)
            stays = file_sha256(path) == self.full_identity["feature"]["head"]["weights"]
            config = config.model_copy(update={"weights": _unchanged(path, stays, config.weights, where)})
        return heads.build(config, self.spec)

    def lineage(self) -> dict[str, Any]:
        """Returns what Parquet footers and reports say about this feature, as plain values."""
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


def _unchanged(path: str, stays: bool, url: str, where: str) -> str:
    """Returns the path of a copy. Raises ``ConfigError`` if its content is not the one that was bound."""
    if not stays:
        raise ConfigError(where, f"{url!r} has changed since the driver read it", "run again with one that stays")
    return path


def bind(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """Checks every feature of ``config`` against its checkpoint, and binds it.

    Raises:
        ConfigError: a mistake in a feature, or files of a checkpoint that do not work together.
        StorageError: a checkpoint cannot be read now.
    """
    config.text_windows()
    _check_decoder(config)
    return tuple(_bind(name, feature, config) for name, feature in config.features.items())


def _bind(name: str, feature: FeatureConfig, config: PipelineConfig) -> BoundFeature:
    """Binds the feature ``name``. Raises ``ConfigError`` for a mistake in it."""
    where = f"features.{name}"
    checkpoint = None
    if isinstance(named := getattr(feature.encoder, "checkpoint", None), str):
        checkpoint = resolve(named, getattr(feature.encoder, "revision", None), f"{where}.encoder.checkpoint")
    encoder = encoders.build(feature.encoder, checkpoint, feature.modality, feature.tokenizer)
    with _model_errors(checkpoint, where):
        encoder.check(where)
    _check_device(feature, config, where)
    tokenizer = tokenizers.build(feature.tokenizer, checkpoint)
    if tokenizer.modality != feature.modality:
        raise ConfigError(
            f"{where}.tokenizer.kind",
            f"{feature.tokenizer.kind!r} reads {tokenizer.modality}",
            f"not {feature.modality}",
        )
    with _model_errors(checkpoint, where):
        tokenizer.check(f"{where}.tokenizer")
        spec = encoder.spec()
    head = heads.build(feature.head, spec)
    _check_emit(feature, spec, head, where)
    weights = checkpoint.weights_sha256() if checkpoint else None
    tokens = feature.store.tokens
    if tokens == "auto":
        tokens = "float32" if spec.native_dtype == "bfloat16" else "float16"
    with_embedding = "embedding" in feature.emit
    space = head.space if with_embedding else spec.space
    described = feature, config, checkpoint, weights, space
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
        identity=feature_identity(*described, without_defaults),
        full_identity=feature_identity(*described, all_keys),
    )


def _check_emit(feature: FeatureConfig, spec: EncoderSpec, head: Head, where: str) -> None:
    """Raises ``ConfigError`` if the encoder does not give what the feature emits."""
    if "embedding" in feature.emit:
        if spec.dim is None:
            raise ConfigError(f"{where}.emit", "'embedding'", f"encoder {feature.encoder.kind!r} gives no embedding")
        head.check(f"{where}.head")
    if spec.token_dim is None and {"tokens", "prefix_tokens"} & set(feature.emit):
        raise ConfigError(f"{where}.emit", "'tokens'", f"encoder {feature.encoder.kind!r} gives no token vectors")
    if "token_ids" in feature.emit and feature.modality != "text":
        raise ConfigError(f"{where}.emit", "'token_ids'", f"{feature.modality} has no token ids")


@contextmanager
def _model_errors(checkpoint: Checkpoint | None, where: str) -> Iterator[None]:
    """Raises a ``ConfigError`` for errors that a model's classes raise while they read its files.

    The values in these files can be anything, and each class raises errors of its own.
    """
    try:
        yield
    except (ConfigError, StorageError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_transient(error):
            raise StorageError(f"cannot read the files of {where} ({describe(error)})") from error
        name = checkpoint.name if checkpoint is not None else "its tokenizer"
        setting = checkpoint.where if checkpoint is not None else f"{where}.tokenizer"
        raise ConfigError(
            setting, f"the files of {name!r} do not work together ({describe(error)})", "give the model's own files"
        ) from error


def _check_device(feature: FeatureConfig, config: PipelineConfig, where: str) -> None:
    """Raises ``ConfigError`` if an encoder asks for CUDA and this machine has none. Clusters are not checked."""
    if getattr(feature.encoder, "device", None) != "cuda" or config.compute.address or os.environ.get("RAY_ADDRESS"):
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"{where}.encoder.device", "'cuda', and this machine has no CUDA device", "auto or cpu")


def _check_decoder(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` if decord is asked for and not installed. It has wheels for x86-64 only."""
    asked = config.decoders.video.kind == "decord" and any(one.modality == "video" for one in config.features.values())
    if asked and find_spec("decord") is None:
        raise ConfigError(
            "decoders.video.kind",
            "'decord', which is not installed here: it has wheels for x86-64 only",
            "pyav, which reads the same files",
        )
