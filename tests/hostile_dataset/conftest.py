"""A good dataset, made once, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.dataset import maintenance
from tests.support.dataset_fixtures import RUNS, night


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three nights, of which the last was compacted."""
    folder = tmp_path_factory.mktemp("made")
    root = folder / "v1"
    night(root, RUNS[1], ["a", "b", "c", "d"])
    night(root, RUNS[2], ["b", "e"], drops={f"data/{RUNS[1]}-000000-000.parquet": [1]})
    night(root, RUNS[3], ["x"], {0: "corrupt"}, drops={f"data/{RUNS[1]}-000000-000.parquet": [3]})
    maintenance.compact(str(folder))
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it; and ``home``, which is not its business."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("key", "x", "data.parquet"):
        (home / name).write_text(f"precious {name}")
    return Path(shutil.copytree(made, tmp_path / "out"))
