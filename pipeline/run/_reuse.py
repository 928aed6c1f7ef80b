"""Where a run takes stored columns from: another version for a new one, or the version itself for what is retried."""

from __future__ import annotations

from typing import Any

from pipeline import storage
from pipeline.config import identity
from pipeline.config.bound import BoundConfig, wanted
from pipeline.config.features import BoundFeature
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.snapshots import Snapshot
from pipeline.run.planning import Plan
from pipeline.run.preparation import version_root
from pipeline.stages.reuse import ReuseSource


def source_of(bound: BoundConfig, base: Snapshot | None) -> ReuseSource | None:
    """Returns where columns are taken from. None: everything is computed.

    Args:
        base: the version's newest snapshot. None: this is its first run.
    """
    if base is None:
        return reuse_source(bound)
    return ReuseSource(version_root(bound.config), base, bound.features, frozenset(), own=True)


def needed(reuse: ReuseSource | None, plan: Plan) -> ReuseSource | None:
    """Returns ``reuse``, or None if no sample of the plan needs it: the list of a large dataset's shards is costly to
    send, and a version takes columns from itself only where it tries something again."""
    return None if reuse is not None and reuse.own and not plan.difference.counts.retried else reuse


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
