"""A stage whose processes start in both ways, how often they start, and a folder of pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.sandbox import LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions, WorkerProcess
from pipeline.stages.probe import ProbeStage
from tests.stages.media_fixtures import bound

Isolate = Callable[[Any, LimitsConfig], SandboxedStage]
FORKED = pytest.mark.parametrize("isolated", ["forked"], indirect=True)
"""For what does not depend on how a process starts."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{'bcde'[i]}.png")
    return folder


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When children were started."""
    times: list[float] = []
    original = WorkerProcess.__init__

    def counted(self: WorkerProcess, *args: Any) -> None:
        times.append(time.monotonic())
        original(self, *args)

    monkeypatch.setattr(WorkerProcess, "__init__", counted)
    return times


@pytest.fixture(params=["forked", "alone"])
def isolated(request: pytest.FixtureRequest) -> Isolate:
    """A stage whose processes fork from the session's fork server, or import for themselves, as on a cluster."""
    address = request.getfixturevalue("fork_server").address if request.param == "forked" else None
    return lambda stage, limits: SandboxedStage(stage, limits, ProcessOptions(address))


def probed(settings: Any) -> tuple[Any, Any, pa.Table]:
    """A config with its features and the rows of its source."""
    settings, features, listed = bound(settings)
    stage = ProbeStage(settings, features)
    stage.setup()
    return settings, features, stage(listed)
