"""Which columns of the current version a new version can take over."""

from __future__ import annotations

from typing import Any

from pipeline import storage
from pipeline.config import identity
from pipeline.config.bound import BoundConfig, wanted
from pipeline.config.features import BoundFeature
from pipeline.dataset.commit import catalog, snapshots
from pipeline.stages.reuse import ReuseSource


def reuse_source(bound: BoundConfig) -> ReuseSource | None:
    """Returns the current version with the features that have the same values, or None if there are none."""
    output = bound.config.output
    version = catalog.current(output.path)
    if version is None:
        return None
    root = storage.join(output.path, version)
    snapshot = snapshots.newest(root)
    assert snapshot is not None
    stored = snapshot.identities.get("features", {})
    sections = [one.get("feature") for one in stored.values()]
    found = [one.get("modality") if isinstance(one, dict) else None for one in sections]
    stored_modalities = {one if isinstance(one, str) else None for one in found}
    read = frozenset(one for one in wanted(bound.config) if one in stored_modalities)
    if stored_modalities - read:
        return None  # its windows depend on files that this config does not open
    same = tuple(one for one in bound.features if one.name in stored and _has_same_values(one, stored[one.name]))
    is_revised = any(
        identity.revision(stored[one.name]) != identity.revision(one.identity)
        for one in bound.features
        if one.timed and one.name in stored
    )
    return ReuseSource(root, snapshot, same, read, other_times=is_revised) if same else None


def _has_same_values(feature: BoundFeature, stored: dict[str, Any]) -> bool:
    """Returns whether a stored feature of identity ``stored`` has the values that ``feature`` would have."""
    same_revision = identity.revision(stored) == identity.revision(feature.identity)
    return same_revision and not identity.of_feature(stored, feature.identity, feature.full_identity)
