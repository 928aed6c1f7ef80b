"""The limits are part of the config, and of no fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.features import bind
from pipeline.core.errors import ConfigError
from pipeline.decoders import DecodersConfig
from pipeline.sandbox import LimitsConfig
from tests.stages.media_fixtures import IMAGE, config


def _with(folder: Path, **limits: Any) -> Any:
    return config(folder, {"i": IMAGE}, decoders={"limits": limits})


def test_limits_change_no_fingerprint(tmp_path: Path) -> None:
    (plain,) = bind(_with(tmp_path))
    (other,) = bind(_with(tmp_path, row_seconds=7, memory_bytes=1 << 30, isolate=False))
    assert other.fingerprint == plain.fingerprint
    assert other.config == plain.config


@pytest.mark.parametrize("limits", [{"row_seconds": 0}, {"row_seconds": float("inf")}, {"memory_bytes": 1000}])
def test_limits_that_no_file_could_keep_are_refused(tmp_path: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"decoders.limits.{next(iter(limits))}"):
        _with(tmp_path, **limits)


def test_the_largest_picture_that_is_let_through_fits() -> None:
    """What decoding `image.max_pixels` takes at most, in bytes a pixel: the file's RGBA, its upright copy, the ground
    that it is laid on, and RGB twice."""
    assert DecodersConfig().image.max_pixels * (4 + 4 + 4 + 3 + 3) <= LimitsConfig().memory_bytes
