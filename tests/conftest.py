"""Fixtures that many tests share: where the real media lie, and one folder of small checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _data() -> Path:
    return Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data")).resolve()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real media. Tests that need it are left out where it is not."""
    folder = _data()
    if not folder.is_dir():
        pytest.skip(f"real media not found at {folder}: set TESSERA_DATA to their folder")
    return folder
