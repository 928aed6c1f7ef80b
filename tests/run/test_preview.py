"""What a run would do and use, without running it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline import run
from pipeline.config import PipelineConfig
from pipeline.config.models import EngineName
from pipeline.core.system.memory import available_memory
from pipeline.engine.local_layout import Machine
from tests.stages.media_fixtures import IMAGE, config
from tests.support import ROOT


@pytest.fixture
def settings(tmp_path: Path) -> PipelineConfig:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "a.png")
    return config(tmp_path / "in", {"i": IMAGE}, compute={"num_cpus": 3})


def _machine(settings: PipelineConfig, engine: EngineName) -> dict[str, int] | None:
    bound = run.prepare(settings, False, None, engine)
    return run.planned_machine(bound, run.planned_spec(bound, run.plan(bound)))


def test_the_workers_of_this_machine(settings: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _machine(settings, "local") == {"cpus": 3, "gpus": 0, "memory_bytes": available_memory(), "workers": 3}
    monkeypatch.setattr(Machine, "here", lambda compute: Machine(3, 2 << 30))
    assert _machine(settings, "local") == {"cpus": 3, "gpus": 0, "memory_bytes": 2 << 30, "workers": 2}
    assert _machine(settings, "ray") is None
    assert _machine(settings, "inline") is None


def test_models_take_memory_of_each_worker(settings: PipelineConfig, models: Path) -> None:
    clip = {"kind": "clip", "checkpoint": str(models / "clip")}
    features = {"i": IMAGE, "c": {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": clip}}
    needed = []
    for chosen in ({"i": IMAGE}, features):
        bound = run.prepare(config(Path(settings.source.path), chosen), False, None, "local")
        needed.append(run.planned_spec(bound, run.plan(bound)).model_bytes)
    weights = sum(path.stat().st_size for path in (models / "clip").glob("*.safetensors"))
    assert needed == [0, 2 * weights]
    assert weights > 0


def test_an_affinity_mask_counts(settings: PipelineConfig, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    all_cores = settings.compute.model_copy(update={"num_cpus": None})
    path.write_text(settings.model_copy(update={"compute": all_cores}).model_dump_json())
    command = [sys.executable, "-m", "jobs.cli", "extract", str(path), "--plan", "--json", "--engine", "local"]
    only = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    done = subprocess.run([*only, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    machine = json.loads(done.stdout)["machine"]
    assert (machine["cpus"], machine["workers"]) == (1, 1)
