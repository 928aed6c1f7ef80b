"""Fixtures that many tests share: the real media, small checkpoints, one Ray, one finished dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real media. Tests that need it are left out where it is not."""
    folder = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"real media not found at {folder}: set TESSERA_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """One local Ray for the whole session."""
    import logging

    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoints, as `tessera models` writes them."""
    from pipeline.demo import models as demo

    folder = tmp_path_factory.mktemp("models")
    demo.build(str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's corpus."""
    from pipeline.demo import corpus

    folder = tmp_path_factory.mktemp("corpus")
    corpus.build(str(folder))
    return folder
