"""Extracts the dataset of the README's first config from the demo's corpus."""

from __future__ import annotations

from pathlib import Path

from pipeline import config as configs
from pipeline import run
from tests.support import ROOT, local_runs


def extract(corpus: Path, models: Path, out: Path) -> None:
    """Writes the dataset to ``out``."""
    overrides = [f"features.{name}.encoder.checkpoint={models / 'clip'}" for name in ("caption", "picture", "clip")]
    overrides += [f"source.path={corpus}", f"output.path={out}"]
    config = configs.load(str(ROOT / "configs" / "first.yaml"), overrides)
    run.extract(local_runs.prepare(config), show_progress=False)
