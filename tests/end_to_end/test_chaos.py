"""The short form of `make chaos`: a driver, a worker, an actor get SIGKILL; the dataset is that of a calm run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.core.errors import ConfigError
from tests.measure import chaos

FEATURES = {
    "p": {
        "modality": "image",
        "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
}


@pytest.fixture(scope="module")
def calm(prepare: Callable[..., Any], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus of real pictures, good and bad, and ``calm``, its dataset."""
    folder = tmp_path_factory.mktemp("chaos")
    (folder / "in").mkdir()
    for pattern, count in (("images/*.jpg", 120), ("bad/*.jpg", 10)):
        for path in sorted(data.glob(pattern))[:count]:
            if path.stat().st_size < 100_000:
                (folder / "in" / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (20, 20), (9, 9, 9)).save(folder / "in" / "last.png")
    config = chaos.write_config(folder, folder / "in", FEATURES, "calm")
    run.extract(prepare(configs.load(str(config))), show_progress=False)
    return folder


KILLED = {
    "driver": ("driver",),
    "worker": ("ray::", chaos.DECODER),
    "actor": ("ray::MapWorker",),
    "encoder": (f"{chaos.DECODER} tessera-encode",),
    "server": (f"{chaos.DECODER} tessera-forks",),
}


@pytest.mark.parametrize("kind", ["driver", "worker", "encoder", "server"])
def test_a_kill_costs_nothing(kind: str, calm: Path, prepare: Callable[..., Any]) -> None:
    _attack("local", kind, calm, prepare, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["driver", "worker", "actor"])
def test_a_kill_on_ray_costs_nothing(
    kind: str,
    calm: Path,
    shared_ray: dict[str, str],
    prepare: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", shared_ray["RAY_ADDRESS"])
    _attack("ray", kind, calm, prepare, os.getpid())


def _attack(engine: str, kind: str, calm: Path, prepare: Callable[..., Any], above: int | None) -> None:
    """Kills a part of a run, continues the run if that ended it, and compares the datasets.

    Args:
        above: id of the process whose descendants the run's processes are. None: the driver.
    """
    name = f"{engine}-{kind}"
    config = chaos.write_config(calm, calm / "in", FEATURES, name)
    process = chaos.start(config, "--engine", engine)
    try:
        assert chaos.shards_are_out(calm / name, process), config.with_suffix(".log").read_text()
        while not any((calm / name / "v1" / "_runs").glob("*/tasks/*.parquet")) and process.poll() is None:
            time.sleep(0.02)  # a shard counts once its task's record is there
        killed = chaos.kill(kind, process, random.Random(0), above)
        assert killed.startswith(KILLED[kind])
        code = process.wait(timeout=200)
    finally:
        chaos.sweep(process)
    assert code == (-9 if kind == "driver" else 0)
    if code:
        with pytest.raises(ConfigError):
            dataset.open(str(calm / name))
        report = run.extract(prepare(configs.load(str(config)), False, None, engine), show_progress=False)
        assert report["samples_by_class"]["rows_adopted"] > 0
    verdict = chaos.compare(kind, calm / name, calm / "calm")
    assert verdict.good, verdict
    assert dataset.open(str(calm / name)).num_rows > 60
