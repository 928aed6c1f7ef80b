"""What is checked before anything is computed."""

from __future__ import annotations

import os
from typing import Any

from pipeline import sources, storage
from pipeline.config import identity
from pipeline.config.bound import BoundConfig
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FIXED
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.stages.rows import ROWS


def _identities(prepared: BoundConfig) -> dict[str, Any]:
    """What decides the values of every column."""
    passthrough = sources.build(prepared.config.source).passthrough()
    return {
        "features": {feature.name: feature.identity for feature in prepared.features},
        "passthrough": {field.name: str(field.type) for field in passthrough},
    }


def _identities_of_contract_1(prepared: BoundConfig) -> dict[str, Any]:
    """The same as the first contract stored it."""
    features = {one.name: identity.as_in_contract_1(one.full_identity) for one in prepared.features}
    return {**_identities(prepared), "features": features}


def _check_identities(prepared: BoundConfig, base: Snapshot | None) -> list[str]:
    """Raises ``ConfigError`` if the dataset's features have other values than the config's.

    Returns:
        warnings: columns that are as an older revision of decoding made them.
    """
    if base is None or not base.identities:
        return []
    ours, stored = _identities(prepared), base.identities
    features, there = {one.name: one for one in prepared.features}, stored.get("features", {})
    found = [f"features.{name} is not in the config" for name in there if name not in features]
    for name, one in features.items():
        differing = identity.of_feature(there[name], one.identity, one.full_identity) if name in there else []
        found += [f"features.{name}.{path} {how}" for path, how in differing]
        found += [] if name in there else [f"features.{name} is not in the dataset"]
    passthrough = identity.differences(stored.get("passthrough", {}), ours["passthrough"], ours["passthrough"])
    found += [f"passthrough.{path} {how}" for path, how in passthrough]
    if found:
        version, more = prepared.config.output.version, f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ConfigError(
            "config",
            f"it is not what version {version!r} of the dataset was made with: {found[0]}{more}",
            "keep the config as it was, or extract beside it with --new-version",
        )
    return _revised(prepared.features, there)


def _revised(features: tuple[BoundFeature, ...], stored: dict[str, dict[str, Any]]) -> list[str]:
    """A line per medium whose rules of decoding are others than those of the dataset."""
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


def _check_output(config: PipelineConfig) -> None:
    """Raises ``ConfigError`` for a place that cannot be reached, or that workers or the next listing would mistake."""
    path = config.output.path
    try:
        storage.list_folders(path)
    except Exception as error:  # any backend may raise anything here
        raise ConfigError("output.path", f"cannot reach {path!r} ({describe(error)})", "give a folder") from error
    if storage.in_one_process(path):
        raise ConfigError("output.path", f"{path!r} lies in one process's memory", "give a folder")
    if storage.is_local(path) and os.path.isfile(storage.split(path)[1]):
        raise ConfigError("output.path", f"{path!r} is a file", "give a folder")
    source = sources.build(config.source)
    source.check("source")
    if source.lists(storage.join(path, config.output.version or "v1", "data", "shard.parquet")):
        raise ConfigError(
            "output.path",
            f"{path!r} lies inside the corpus, where the next listing would find its shards",
            "a folder outside of it, or one that source.exclude names",
        )


def _check_passthrough(config: PipelineConfig, features: tuple[BoundFeature, ...]) -> None:
    """The corpus's own columns must not take the name of one of ours, stored or on the way."""
    source = sources.build(config.source)
    source.check("source")
    if config.source.kind == "files" and storage.in_one_process(config.source.path):
        raise ConfigError(
            "source.path", f"{config.source.path!r} lies in one process's memory", "what workers can read"
        )
    ours = {*FIXED.names, *ROWS.names, *(field.name for feature in features for field in feature.fields())}
    for name in source.passthrough().names:
        if name in ours:
            raise ConfigError(
                "source.passthrough", f"column {name!r} is the dataset's own", "rename it in the manifest"
            )
        if "/" in name:
            raise ConfigError("source.passthrough", f"column {name!r}", "a name without /: rename it in the manifest")
