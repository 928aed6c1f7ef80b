"""A config whose features are bound to their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.media import Modality
from pipeline.core.schema import ROLES


@dataclass(frozen=True)
class BoundConfig:
    """A checked config with its bound features."""

    config: PipelineConfig
    features: tuple[BoundFeature, ...]
    template: str | None = None
    """Address of the fork server on this machine (`pipeline.sandbox.fork_server`). None: there is none."""


def wanted(config: PipelineConfig) -> set[Modality]:
    """Returns the modalities that the features read."""
    return {feature.modality for feature in config.features.values()}


def roles_to_open(modalities: set[Modality]) -> tuple[str, ...]:
    """Returns the roles of files that may hold one of ``modalities``.

    A video may have a sound track, and ``other`` may be anything.
    """
    return tuple(
        role
        for role in ROLES
        if role in modalities or role == "other" or (role == "video" and modalities & {"audio", "image"})
    )
