"""A config whose features are bound to their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.config.features import BoundFeature
from pipeline.config.models import EngineName, PipelineConfig
from pipeline.core.media import Modality
from pipeline.core.schema import ROLES


class HasAddress(Protocol):
    """A fork server (`pipeline.sandbox.fork_server`), which may start when its address is asked for."""

    @property
    def address(self) -> str: ...


@dataclass(frozen=True)
class BoundConfig:
    """A checked config with its bound features."""

    config: PipelineConfig
    features: tuple[BoundFeature, ...]
    engine: EngineName = "local"
    """Name of the engine (`pipeline.engine`)."""
    engine_reason: str = "by name"
    """Why it is this engine."""
    fork_server: HasAddress | None = None
    """The fork server on this machine. None: there is none."""


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
