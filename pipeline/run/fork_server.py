"""The fork server of a local run: a process that checks the features, and from which the processes of the run fork."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from pipeline import config as configs
from pipeline import decoders
from pipeline.config import features as binding
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.sandbox import ForkServer


@contextlib.contextmanager
def started(config: PipelineConfig) -> Iterator[ForkServer | None]:
    """Starts the fork server for the body, and stops it afterwards.

    Yields:
        The server, or None if the run joins a cluster, or Ray is initialized in this process.
    """
    ray = sys.modules.get("ray")
    if config.compute.cluster()[0] or (ray is not None and ray.is_initialized()):
        yield None
        return
    with ForkServer(check, configs.here(config)) as server:
        yield server


def check(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """Binds the features, and imports everything that decodes, tokenizes and encodes them. Runs in the fork server.

    Raises:
        ConfigError: see `pipeline.config.features.bind`.
    """
    features = binding.bind(config)
    decoders.load({feature.modality for feature in features}, config.decoders)
    for feature in features:
        feature.encoder().import_code()
    return features
