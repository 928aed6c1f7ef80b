"""What is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import run
from pipeline.core.errors import ConfigError
from tests.stages.media_fixtures import media_config


def test_the_output_must_lie_outside_the_corpus(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ConfigError, match=r"output\.path: .* is inside the corpus"):
        run.prepare(media_config(models, tmp_path, tmp_path / "out"))
