"""The template of a local run: a process that checks the config's features, and from which those of the run fork."""

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
    """None where the run joins a cluster, whose processes are elsewhere."""
    ray = sys.modules.get("ray")
    if config.compute.cluster()[0] or (ray is not None and ray.is_initialized()):
        yield None
        return
    with ForkServer(check, configs.here(config)) as template:
        yield template


def check(config: PipelineConfig) -> tuple[BoundFeature, ...]:
    """The features of ``config``; imports what decoding, tokenizing and encoding them takes. Raises ``ConfigError``."""
    features = binding.bind(config)
    decoders.load({feature.modality for feature in features}, config.decoders)
    for feature in features:
        feature.encoder().import_code()
    return features
