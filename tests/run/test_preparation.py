"""What is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import run
from pipeline.core.errors import ConfigError
from tests.stages.media_fixtures import media_config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("output.path=memory://out", r"output\.path: 'memory://out' is in one process's memory"),
        ("output.path=/proc/x", r"output\.path: cannot write to '/proc/x/v1'"),
        ("output.path=''", r"output\.path: found ''"),
        ("compute.pools.default.num_cpus=.inf", r"compute\.pools\.default\.num_cpus: found inf"),
        ("features.speech.tokenizer.frame_s=.inf", r"features\.speech\.tokenizer\.frame_s: found inf"),
        ("features.video.tokenizer.sampling={kind: fps, fps: 1e308}", r"features\.video\.tokenizer\.sampling\.fps"),
    ],
)
def test_what_cannot_work_is_told_before_compute(models: Path, tmp_path: Path, override: str, expected: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("words")
    with pytest.raises(ConfigError, match=expected):
        run.prepare(media_config(models, tmp_path / "in", tmp_path / "out", override))
