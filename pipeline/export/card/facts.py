"""What a card says about a snapshot: numbers, features, lineage. Texts have no secrets and no control characters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.core.errors import ConfigError, one_line
from pipeline.dataset import Dataset
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.feature_info import FeatureInfo, feature_columns

_MAX_TEXT = 300
"""Longer texts of a dataset are cut."""
_FIXED = {
    "sample_id": "id of the sample",
    "window": "number of the window of time in its sample",
    "start_s": "start of the window in seconds; null: the sample has no times",
    "end_s": "end of the window in seconds",
    "source_version": "digest of the identities of the sample's files",
    "run_id": "id of the run that wrote the row",
}
_PARTS = {
    "embedding": "embedding",
    "tokens": "token vectors in grid order",
    "prefix_tokens": "vectors of the class token and other leading tokens",
    "token_ids": "token ids",
    "grid": "grid (T, H, W) of the tokens",
    "times": "time of each step in seconds",
}


@dataclass(frozen=True)
class FeatureFacts:
    """A feature, as a card describes it."""

    name: str
    modality: str
    model: str
    model_type: str
    revision: str
    weights_sha256: str
    space: str
    normalized: bool
    dim: int | None
    token_dim: int | None
    embedding_dtype: str
    token_dtype: str
    preprocessing: dict[str, str]
    """Tokenizer, processor, head, prompt and fingerprint, without those that the feature does not have."""


@dataclass(frozen=True)
class Facts:
    """A snapshot, as a card describes it."""

    name: str
    version: str
    snapshot: int
    created: str
    run_id: str
    rows: int
    failures: int
    shards: list[File]
    schema: pa.Schema
    features: list[FeatureFacts]
    meanings: dict[str, str]
    """Column -> what it is."""
    window: str
    """The settings of the windows."""
    versions: str
    """The libraries that computed the values."""

    @property
    def bytes(self) -> int:
        """Size of the shards."""
        return sum(shard.bytes for shard in self.shards)

    def shard_paths(self) -> list[str]:
        """Returns the paths of the shards, relative to the folder that holds the version."""
        return [f"{self.version}/{shard.path}" for shard in self.shards]

    @staticmethod
    def of(dataset: Dataset) -> Facts:
        """Returns the facts of a snapshot.

        Raises:
            ConfigError: plain readers of its files do not find exactly its rows.
        """
        _check_plain(dataset)
        lineage = dataset.lineage
        meanings = {name: text for name, text in _FIXED.items() if name in dataset.schema.names}
        for feature in dataset.features.values():
            for name, part in feature_columns(feature):
                meanings[name] = f"{_PARTS[part]} of {text(feature.name)}"
        return Facts(
            name=_name(dataset.root),
            version=dataset.root.rsplit("/", 1)[-1],
            snapshot=dataset.snapshot,
            created=dataset.created.isoformat(),
            run_id=text(dataset.run_id),
            rows=dataset.num_rows,
            failures=dataset.num_failures,
            shards=dataset.shards,
            schema=dataset.schema,
            features=[_feature(one) for one in dataset.features.values()],
            meanings=meanings,
            window=_settings(lineage.get("window")),
            versions=_settings(lineage.get("versions")),
        )


def text(value: object) -> str:
    """Returns a value of a dataset as one line, without secrets; cut if it is long."""
    return one_line(str(value), _MAX_TEXT)


def public_model(model: str) -> str:
    """Returns the name of a model. Of a folder of a machine only the last name, because cards are published."""
    if "://" not in model and os.path.isabs(model):
        return text(model.rstrip("/").rpartition("/")[2])
    return text(model)


def _name(root: str) -> str:
    """Returns the name of the folder that holds the version at ``root``."""
    path = os.path.realpath(storage.split(root)[1]) if storage.is_local(root) else root
    return text(path.rstrip("/").rpartition("/")[0].rstrip("/").rpartition("/")[2]) or "dataset"


def _feature(feature: FeatureInfo) -> FeatureFacts:
    values = {
        "tokenizer": feature.tokenizer,
        "processor": feature.processor,
        "head": feature.head,
        "prompt": feature.prompt,
        "fingerprint": feature.fingerprint,
    }
    return FeatureFacts(
        name=text(feature.name),
        modality=text(feature.modality),
        model=public_model(feature.model),
        model_type=text(feature.model_type or ""),
        revision=text(feature.revision or ""),
        weights_sha256=text(feature.weights_sha256 or ""),
        space=text(feature.space),
        normalized=feature.normalized,
        dim=feature.dim,
        token_dim=feature.token_dim,
        embedding_dtype=text(feature.embedding_dtype or "") if "embedding" in feature.emit else "",
        token_dtype=text(feature.token_dtype or "") if {"tokens", "prefix_tokens"} & {*feature.emit} else "",
        preprocessing={name: text(value) for name, value in values.items() if value not in (None, "")},
    )


def _settings(values: Any) -> str:
    """Returns a mapping as ``name value, name value``."""
    if not isinstance(values, dict):
        return ""
    return text(", ".join(f"{name} {value}" for name, value in values.items() if value is not None))


def _check_plain(dataset: Dataset) -> None:
    """Raises ``ConfigError`` if a shard has deleted rows or is not in ``data/``: a card sends plain readers there."""
    deleted = sum(len(shard.deleted) for shard in dataset.shards)
    if deleted:
        what = f"{deleted} rows that snapshot {dataset.snapshot} deletes are still in its files"
        raise ConfigError("--snapshot", what, "run `tessera compact` first, or export the snapshot")
    names = {*DatasetFolder(dataset.root).list_files("data")}
    missing = [shard.path for shard in dataset.shards if shard.path.rpartition("/")[2] not in names]
    if missing:
        what = f"{missing[0]} of snapshot {dataset.snapshot} is not in data/ any more"
        raise ConfigError("--snapshot", what, "the newest snapshot, or export this one")


def dataset_folder(dataset: Dataset, source: str) -> str:
    """Returns the folder that holds the version, where a card belongs.

    Args:
        dataset: the snapshot.
        source: the path of the dataset, as the user named it.

    Raises:
        ConfigError: the user named the folder of the version, so that the one above it may be anything.
    """
    if source.rstrip("/") == dataset.root.rstrip("/"):
        raise ConfigError("--out", f"{source!r} is the folder of one version", "give --out FOLDER, or the dataset")
    return dataset.root.rpartition("/")[0]
