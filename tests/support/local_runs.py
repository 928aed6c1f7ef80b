"""Prepares runs whose processes fork from one fork server of the test process. Each process would import for itself."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from typing import Any

from pipeline import decoders, run
from pipeline.config.bound import BoundConfig
from pipeline.config.models import PipelineConfig
from pipeline.sandbox import ForkServer

_MODULES = (
    "torch",
    "torchaudio.transforms",
    "transformers.models.bert.modeling_bert",
    "transformers.models.clip.modeling_clip",
    "transformers.models.videomae.modeling_videomae",
    "transformers.models.wav2vec2.modeling_wav2vec2",
    "pipeline.stages.decode",
    "pipeline.stages.encode",
    "pipeline.stages.probe",
)


def prepare(config: PipelineConfig, *arguments: Any, **named: Any) -> BoundConfig:
    """`pipeline.run.prepare`, for a run whose processes fork from the fork server of this test process."""
    return replace(run.prepare(config, *arguments, **named), fork_server=fork_server())


@cache
def fork_server() -> ForkServer:
    """Returns the fork server. It ends with this process."""
    server = ForkServer(import_libraries)
    server.prepared()
    return server


def import_libraries() -> None:
    """Imports what the stages of most tests need. Runs in the fork server."""
    decoders.load({"text", "image", "audio", "video"}, decoders.DecodersConfig())
    for name in _MODULES:
        importlib.import_module(name)
