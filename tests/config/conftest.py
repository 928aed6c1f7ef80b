"""Fixtures of tests of configs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def clip(models: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(models / "clip", tmp_path / "clip"))
