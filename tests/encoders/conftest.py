"""Fixtures of the encoder tests: small visual checkpoints, real pictures, real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.media import Frames
from tests.encoders.vision_fixtures import read_clips, read_pictures, write_checkpoints


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """One small checkpoint of every visual architecture, by name."""
    return write_checkpoints(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="session")
def pictures(data: Path) -> list[np.ndarray]:
    """Real photographs, and noise of extreme sizes."""
    return read_pictures(data)


@pytest.fixture(scope="session")
def clips(data: Path) -> list[Frames]:
    """Eight frames of each real video."""
    return read_clips(data)
