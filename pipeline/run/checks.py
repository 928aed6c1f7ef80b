"""Checks of a config, its output and the dataset, before anything is computed."""

from __future__ import annotations

import os
from typing import Any

from pipeline import sources, storage
from pipeline.config import identity
from pipeline.config.bound import BoundConfig
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.schema import FIXED
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.stages.rows import ROWS


def identities(bound: BoundConfig) -> dict[str, Any]:
    """Returns what decides the values of every column, as plain values."""
    passthrough = sources.build(bound.config.source).passthrough()
    return {
        "features": {feature.name: feature.identity for feature in bound.features},
        "passthrough": {field.name: str(field.type) for field in passthrough},
    }


def identities_of_contract_1(bound: BoundConfig) -> dict[str, Any]:
    """Returns the `identities` as the first contract stored them."""
    features = {one.name: identity.as_in_contract_1(one.full_identity) for one in bound.features}
    return {**identities(bound), "features": features}


def check_identities(bound: BoundConfig, base: Snapshot | None) -> list[str]:
    """Compares the features and passed-through columns of the config with those of the dataset.

    Args:
        base: the newest snapshot. None: there is none, and nothing to compare.

    Returns:
        Warnings about columns that an older revision of decoding made.

    Raises:
        ConfigError: a column would have other values than the dataset has.
    """
    if base is None or not base.identities:
        return []
    ours, stored = identities(bound), base.identities
    features, stored_features = {one.name: one for one in bound.features}, stored.get("features", {})
    found = [f"features.{name} is not in the config" for name in stored_features if name not in features]
    for name, one in features.items():
        if name not in stored_features:
            found.append(f"features.{name} is not in the dataset")
            continue
        differing = identity.of_feature(stored_features[name], one.identity, one.full_identity)
        found += [f"features.{name}.{path} {how}" for path, how in differing]
    passthrough = identity.differences(stored.get("passthrough", {}), ours["passthrough"], ours["passthrough"])
    found += [f"passthrough.{path} {how}" for path, how in passthrough]
    if found:
        version, more = bound.config.output.version, f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ConfigError(
            "config",
            f"it is not what version {version!r} of the dataset was made with: {found[0]}{more}",
            "keep the config as it was, or extract into a version of its own with --new-version",
        )
    return revision_warnings(bound.features, stored_features)


def revision_warnings(features: tuple[BoundFeature, ...], stored: dict[str, dict[str, Any]]) -> list[str]:
    """Returns a warning for each medium whose decoding revision differs from that of the dataset."""
    columns: dict[tuple[str, int, int], list[str]] = {}
    for one in features:
        there, here = identity.revision(stored[one.name]), identity.revision(one.identity)
        if there != here:
            names = [field.name for field in one.fields()]
            columns.setdefault((one.modality, there, here), []).extend(names)
    return [
        f"{', '.join(names)}: rows that are there were made by revision {there} of decoding {medium}, new ones by "
        f"{here} (docs/decisions/0014-revisions-of-decoding.md); --new-version computes all of them again"
        for (medium, there, here), names in columns.items()
    ]


def check_output(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` if the output cannot be reached, cannot be written by workers, or is inside the corpus."""
    path = config.output.path
    storage.check_listable(path, "output.path")
    if storage.in_one_process(path):
        raise ConfigError("output.path", f"{path!r} is in one process's memory", "give a folder")
    if storage.is_local(path) and os.path.isfile(storage.split(path)[1]):
        raise ConfigError("output.path", f"{path!r} is a file", "give a folder")
    source = sources.build(config.source)
    source.check("source")
    if source.lists(storage.join(path, config.output.version or "v1", "data", "shard.parquet")):
        raise ConfigError(
            "output.path",
            f"{path!r} is inside the corpus, where the next listing would find its shards",
            "a folder outside of it, or one that source.exclude names",
        )


def check_passthrough(config: PipelineConfig, features: tuple[BoundFeature, ...]) -> None:
    """Raises ``ConfigError`` if a passed-through column has a name that rows or the dataset use, or workers cannot read
    the source."""
    source = sources.build(config.source)
    source.check("source")
    if config.source.kind == "files" and storage.in_one_process(config.source.path):
        raise ConfigError("source.path", f"{config.source.path!r} is in one process's memory", "what workers can read")
    ours = {*FIXED.names, *ROWS.names, *(field.name for feature in features for field in feature.fields())}
    for name in source.passthrough().names:
        if name in ours:
            raise ConfigError(
                "source.passthrough", f"column {name!r} is the dataset's own", "rename it in the manifest"
            )
        if "/" in name:
            raise ConfigError("source.passthrough", f"column {name!r}", "a name without /: rename it in the manifest")
