"""A row at which an encoder's process dies costs itself, on every engine whose encoders have processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import dataset, run
from pipeline.config.models import EngineName
from pipeline.core.errors import TesseraError
from pipeline.run import pipeline
from pipeline.stages.encode import EncodeStage
from tests.engine.fragile_encoder import ABORT, DEVICE, ONCE, SEGFAULT, FragileEncode
from tests.stages.media_fixtures import IMAGE, config

Extract = Callable[[list[int], type[EncodeStage]], dict[str, Any]]


LOCAL_DAILY = pytest.mark.parametrize("extract", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
"""On Ray each run costs an import of the models' code, and the same code judges the deaths."""


@pytest.fixture(params=["local", "ray"])
def extract(
    request: pytest.FixtureRequest,
    ray_session: Any,
    prepare: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Extract:
    """Extracts pictures of these reds, which are named by their number, with this stage; returns the report."""

    def extract(reds: list[int], encode: type[EncodeStage]) -> dict[str, Any]:
        monkeypatch.setattr(pipeline, "EncodeStage", encode)
        (tmp_path / "in").mkdir()
        for i, red in enumerate(reds):
            Image.new("RGB", (32, 32), (red, 0, 255)).save(tmp_path / "in" / f"{i:03d}.png")
        settings = config(tmp_path / "in", {"i": IMAGE}, compute={"block_rows": 5, "num_cpus": 2})
        name: EngineName = request.param
        return run.extract(prepare(settings, False, None, name), show_progress=False)

    return extract


@LOCAL_DAILY
def test_rows_that_kill_the_encoder_cost_themselves(extract: Extract, tmp_path: Path) -> None:
    bad = {3: ABORT, 4: SEGFAULT, 9: DEVICE, 14: ONCE}
    report = extract([bad.get(i, i) for i in range(20)], FragileEncode)
    assert report["failures_by_kind"] == {"crash": 3}
    found = dataset.open(str(tmp_path / "out"))
    reported = {row["sample_id"]: (row["stage"], row["message"]) for row in found.failures().to_pylist()}
    assert reported == {
        "003.png": ("encode", "the encoder's process died while encoding (SIGABRT)"),
        "004.png": ("encode", "the encoder's process died while encoding (SIGSEGV)"),
        "009.png": (
            "encode",
            "the device failed while encoding (RuntimeError: CUDA error: device-side assert triggered)",
        ),
    }
    rows = {row["sample_id"]: np.array(row["i_tokens"])[0, 0] for row in found.to_arrow().to_pylist()}
    assert {name: round(float(red) * 255) for name, red in rows.items()} == {
        f"{i:03d}.png": ONCE if i == 14 else i for i in range(20) if i == 14 or i not in bad
    }


@LOCAL_DAILY
def test_a_device_that_fails_at_everything_ends_the_run(extract: Extract) -> None:
    with pytest.raises(TesseraError, match=r"features.i: the device failed \(RuntimeError: CUDA error: device-side"):
        extract([DEVICE] * 12, FragileEncode)


class Unloadable(EncodeStage):
    def setup(self) -> None:
        os.abort()


def test_models_that_kill_their_process_end_the_run(extract: Extract) -> None:
    with pytest.raises(TesseraError, match=r"the run .* broke off: the process of Unloadable cannot start"):
        extract([1], Unloadable)
