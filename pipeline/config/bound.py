"""A config whose features are bound to their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.media import Modality
from pipeline.core.schema import ROLES


@dataclass(frozen=True)
class BoundConfig:
    """A checked config and its features, bound to their checkpoints."""

    config: PipelineConfig
    features: tuple[BoundFeature, ...]
    template: str | None = None
    """Address of the process on this machine from which those of the run fork (`pipeline.sandbox.fork_server`)."""


def wanted(config: PipelineConfig) -> set[Modality]:
    """The modalities that some feature reads."""
    return {feature.modality for feature in config.features.values()}


def roles_to_open(modalities: set[Modality]) -> tuple[str, ...]:
    """Roles of files that may hold one of ``modalities``: a video has a sound track, ``other`` may be anything."""
    return tuple(
        role
        for role in ROLES
        if role in modalities or role == "other" or (role == "video" and modalities & {"audio", "image"})
    )
