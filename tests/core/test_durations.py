"""Durations are read as people write them; anything else is one clear line."""

from __future__ import annotations

import pytest

from pipeline.core import durations
from pipeline.core.errors import ConfigError


def test_units() -> None:
    expected = {"45s": 45, "90m": 5400, "12h": 43_200, "7d": 604_800, "2w": 1_209_600, "1.5h": 5400, " 1d ": 86_400}
    assert {text: durations.seconds(text, "x") for text in expected} == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "-1d", "1e3d", "7days", "1_0s", "\u0661d", "5201w", "9" * 400 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="--deadline: found"):
        durations.seconds(text, "--deadline")
